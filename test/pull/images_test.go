//go:build linux

package pull

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
)

// info is an object of peel images --json.
type info struct {
	Name     string        `json:"name"`
	Digest   digest.Digest `json:"digest"`
	Manifest digest.Digest `json:"manifest"`
	Platform string        `json:"platform"`
	Size     int64         `json:"size"`
	Present  int64         `json:"present"`
	Total    int64         `json:"total"`
}

func images(t *testing.T, p *testkit.Peel) map[string]info {
	t.Helper()
	var all []info
	if err := json.Unmarshal([]byte(p.Must("images", "--json").Stdout), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]info{}
	for _, i := range all {
		out[i.Name] = i
	}
	return out
}

// kept are the files of the cache that hold layers or documents.
func kept(t *testing.T, p *testkit.Peel) (names []string, size int64) {
	t.Helper()
	err := filepath.WalkDir(p.Cache, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(p.Cache, name)
		if err != nil {
			return err
		}
		switch top, _, _ := strings.Cut(rel, string(filepath.Separator)); top {
		case "blobs", "image", "index", "tree", "claims", "refs":
			fi, err := d.Info()
			if err != nil {
				return err
			}
			names = append(names, rel)
			size += fi.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, size
}

func TestImages(t *testing.T) {
	t.Parallel()
	base := newPart(t, "base", testkit.Gzip, 6)
	a := newImage("ima/a", base, newPart(t, "a", testkit.Gzip, 10))
	b := newImage("ima/b", base, newPart(t, "b", testkit.Stargz, 10))
	reg := testkit.NewRegistry(t)
	da := reg.Publish(t, a.repo, "v1", a.layers...)
	db := reg.Publish(t, b.repo, "v1", b.layers...)
	reg.Publish(t, a.repo, "same", a.layers...)
	refA, refSame, refB := reg.Ref(a.repo, "v1"), reg.Ref(a.repo, "same"), reg.Ref(b.repo, "v1")
	p := testkit.NewPeel(t)
	if r := p.Must("images"); strings.Count(r.Stdout, "\n") != 1 {
		t.Errorf("an empty cache has\n%s", r.Stdout)
	}
	p.Must("pull", refA, refSame)
	root := p.Mount(refB)
	if _, err := os.ReadFile(filepath.Join(root, "b/file-0")); err != nil {
		t.Error(err)
	}
	reg.Stop()

	got := images(t, p)
	if i := got[refA]; len(got) != 3 || i.Digest != da.Digest || i.Size != a.size() || i.Present != i.Total || i.Total < 16*fileSize || i.Platform != "linux/amd64" {
		t.Errorf("%d images, the first: %+v", len(got), i)
	}
	if i := got[refB]; i.Digest != db.Digest || i.Present < 7*fileSize || i.Present >= i.Total {
		t.Errorf("an image that is here in part: %+v", i)
	}
	if r := p.Must("images"); !strings.Contains(r.Stdout, refA) || !strings.Contains(r.Stdout, da.Digest.Encoded()[:12]) {
		t.Error(r.Stdout)
	}

	_, before := kept(t, p)
	if r := p.Must("images", "rm", refSame); !strings.Contains(r.Stdout, "Removed "+refSame) {
		t.Error(r.Stdout)
	}
	if _, after := kept(t, p); before-after > 100_000 {
		t.Errorf("%d bytes went with one of two names", before-after)
	}
	if r := p.Run("images", "rm", refB); r.Code != testkit.Failed || !strings.Contains(r.Stderr, root) || !strings.Contains(r.Stderr, "peel umount") {
		t.Errorf("what is mounted: exit code %d\n%s", r.Code, r.Stderr)
	}
	b.sameFile(t, root, 0)
	var freed struct{ Freed int64 }
	r := p.Must("images", "rm", "--json", da.Digest.Encoded()[:12])
	if err := json.Unmarshal([]byte(r.Stdout), &freed); err != nil || freed.Freed < 10*fileSize || freed.Freed > 12*fileSize {
		t.Errorf("%v\n%s", err, r.Stdout)
	}
	if got := images(t, p); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	p.Umount(root)
	b.sameFile(t, p.Mount(refB), 0) // the layer that both had stays
	for _, m := range p.Mounts() {
		p.Umount(m)
	}
	if r := p.Run("images", "rm", refB, "no/such:image"); r.Code != testkit.NotFound || !strings.Contains(r.Stdout, "Removed "+refB) {
		t.Errorf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	if names, _ := kept(t, p); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

// TestIndexed: what is read by an index that somebody has attached is pulled
// whole and removed whole, too.
func TestIndexed(t *testing.T) {
	t.Parallel()
	m := newImage("in/dexed", newPart(t, "a", testkit.Gzip, 20), newPart(t, "b", testkit.Gzip, 5))
	reg := testkit.NewRegistry(t)
	reg.Publish(t, m.repo, "v1", m.layers...)
	ref := reg.Ref(m.repo, "v1")
	p := testkit.NewPeel(t)
	p.Beside().Must("index", "push", ref)
	if last, _ := pulled(t, p, ref); !last[ref].New || last[ref].Fetched > m.size() {
		t.Errorf("%+v", last[ref])
	}
	if last, _ := pulled(t, p, ref); last[ref].New {
		t.Errorf("again: %+v", last[ref])
	}
	if i := images(t, p)[ref]; i.Present != i.Total || i.Total < 25*fileSize {
		t.Errorf("%+v", i)
	}
	reg.Stop()
	root := p.Mount(ref, "--pull", "never")
	m.same(t, root)
	p.Umount(root)
	p.Must("images", "rm", ref)
	if names, _ := kept(t, p); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

// sameFile compares one file of the image's first layer.
func (m image) sameFile(t *testing.T, root string, i int) {
	t.Helper()
	one := m
	one.entries = m.entries[i : i+1]
	one.same(t, root)
}
