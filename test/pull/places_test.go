//go:build linux

package pull

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestArchiveOfSeveral: all images of an archive are pulled unless one is named.
func TestArchiveOfSeveral(t *testing.T) {
	t.Parallel()
	base := newPart(t, "base", testkit.Gzip, 5)
	a, b := newImage("arch/a", base, newPart(t, "a", testkit.Gzip, 2)), newImage("arch/b", base)
	reg := testkit.NewRegistry(t)
	reg.Publish(t, a.repo, "v1", a.layers...)
	reg.Publish(t, b.repo, "v1", b.layers...)
	refA, refB := reg.Ref(a.repo, "v1"), reg.Ref(b.repo, "v1")
	p := testkit.NewPeel(t)
	file := filepath.Join(t.TempDir(), "two.tar")
	p.Must("save", refA, refB, "-o", file)
	reg.Stop()

	all, one := p.Beside(), p.Beside()
	r := all.Must("pull", "docker-archive:"+file)
	for _, want := range []string{"Known as " + refA, "Known as " + refB} {
		if !strings.Contains(r.Stdout, want+"\n") {
			t.Errorf("no %q in\n%s", want, r.Stdout)
		}
	}
	if r := one.Must("pull", "--quiet", "docker-archive:"+file+":"+refB); r.Stdout != refB+"\n" {
		t.Errorf("%q", r.Stdout)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	a.same(t, all.Mount(refA))
	b.same(t, all.Mount(refB))
	b.same(t, one.Mount(refB))
	if r := one.Run("mount", "--pull", "never", refA, one.Dir()); r.Code != testkit.NotFound {
		t.Errorf("what was not named: exit code %d\n%s", r.Code, r.Stderr)
	}
}

// TestLocal: what an archive has is known by its names afterwards, without it.
func TestLocal(t *testing.T) {
	t.Parallel()
	m := newImage("lo/cal", newPart(t, "lower", testkit.Gzip, 6), newPart(t, "upper", testkit.Gzip, 2))
	dir := t.TempDir()
	l, err := testkit.NewLayout(filepath.Join(dir, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Image(m.layers...)
	if err == nil {
		err = l.Tag("v1", d)
	}
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "archive.tar")
	testkit.RunSkopeo(t, "copy", "oci:"+l.Dir+":v1", "docker-archive:"+archive+":example.com/lo/cal:v1")
	p := testkit.NewPeel(t)
	for _, tc := range []struct{ ref, name string }{
		{"docker-archive:" + archive, "example.com/lo/cal:v1"},
		{"oci:" + l.Dir, "oci:" + l.Dir + ":v1"},
	} {
		last, states := pulled(t, p, tc.ref)
		for _, e := range last {
			if !e.New {
				t.Errorf("%+v", e)
			}
		}
		for layer, s := range states {
			if !slices.Contains(s, "complete") {
				t.Errorf("%s: %v", layer, s)
			}
		}
		for _, e := range func() map[string]event { last, _ := pulled(t, p, tc.ref); return last }() {
			if e.New {
				t.Errorf("again: %+v", e)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	m.same(t, p.Mount("example.com/lo/cal:v1", "--pull", "never"))
}

// TestSchema1: an image of Docker schema 1 is as local as any other afterwards,
// and leaves nothing when it is removed.
func TestSchema1(t *testing.T) {
	t.Parallel()
	vectors, want, ok := testkit.Vectors(t)
	if !ok {
		return
	}
	reg := testkit.NewOldRegistry(t)
	reg.PushSchema1(t, filepath.Join(vectors, "tricky-schema1"), "old/er", "v1")
	ref := reg.Ref("old/er", "v1")
	p := testkit.NewPeel(t)
	if last, _ := pulled(t, p, ref); !last[ref].New || last[ref].Fetched == 0 {
		t.Errorf("%+v", last[ref])
	}
	if last, _ := pulled(t, p, ref); last[ref].New {
		t.Errorf("again: %+v", last[ref])
	}
	reg.Stop()
	root := p.Mount(ref, "--pull", "never")
	rows, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, diff := range testkit.Differences(want, rows, testkit.Exact) {
		t.Error(diff)
	}
	p.Umount(root)
	p.Must("images", "rm", ref)
	if names, _ := kept(t, p); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

// TestDestination: the images are saved as they are, and each byte is
// transferred once.
func TestDestination(t *testing.T) {
	t.Parallel()
	base := newPart(t, "base", testkit.Gzip, 6)
	a, b := newImage("desti/a", base, newPart(t, "a", testkit.Stargz, 4)), newImage("desti/b", base)
	reg := testkit.NewRegistry(t)
	da := reg.Publish(t, a.repo, "v1", a.layers...)
	reg.Publish(t, b.repo, "v1", b.layers...)
	proxy := testkit.NewProxy(t, reg.Host())
	refs := []string{proxy.Ref(a.repo, "v1"), proxy.Ref(b.repo, "v1")}
	p := testkit.NewPeel(t)
	dir := filepath.Join(t.TempDir(), "layout")
	for _, isNew := range []bool{true, false} {
		last, _ := pulled(t, p, "--destination", dir, refs[0], refs[1])
		if last[refs[0]].New != isNew || last[refs[0]].Digest != da.Digest {
			t.Errorf("%+v", last[refs[0]])
		}
		got := served(proxy.Log())
		for _, l := range a.layers {
			if n := got[l.Desc.Digest]; n > l.Desc.Size || isNew && n < l.Desc.Size || !isNew && n > 0 {
				t.Errorf("%d bytes of a layer of %d", n, l.Desc.Size)
			}
		}
	}
	reg.Stop()
	a.same(t, p.Mount(refs[0], "--pull", "never"))
	for _, l := range a.layers {
		raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", l.Desc.Digest.Encoded()))
		if err != nil || !bytes.Equal(raw, l.Blob) {
			t.Errorf("%d bytes of %s, %v", len(raw), l.Desc.Digest, err)
		}
	}
	r := p.Must("images", "--json", "oci:"+dir)
	if !strings.Contains(r.Stdout, da.Digest.String()) {
		t.Error(r.Stdout)
	}
}
