package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// sees mounts what args name, compares it and unmounts it.
func sees(t *testing.T, p *testkit.Peel, want []testkit.Row, args ...string) {
	t.Helper()
	dir := p.Dir()
	p.Must(append(append([]string{"mount"}, args...), dir)...)
	got, err := testkit.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range testkit.Differences(want, got, testkit.Exact) {
		t.Errorf("%s: %s", args, d)
	}
	p.Umount(dir)
}

// A registry that has schema 1 serves it to who asks for it, besides newer
// manifests; what each schema means is remembered apart, and enough to mount
// again when the registry has gone.
func TestSchemasOfARegistry(t *testing.T) {
	t.Parallel()
	dir, want, found := testkit.Vectors(t)
	if !found {
		return
	}
	reg := testkit.NewOldRegistry(t)
	reg.PushSchema1(t, filepath.Join(dir, "tricky-schema1"), "old", "v1")
	testkit.RunSkopeo(t, "copy", "--quiet", "--format=v2s2", "--dest-tls-verify=false",
		"oci:"+filepath.Join(dir, "tricky")+":gz", "docker://"+reg.Ref("new", "v1"))
	p := testkit.NewPeel(t)
	ids := map[string]string{}
	inspected := func(args ...string) (in inspection) {
		t.Helper()
		args = append([]string{"inspect", "--json"}, args...)
		if err := json.Unmarshal([]byte(p.Must(args...).Stdout), &in); err != nil {
			t.Fatal(err)
		}
		return in
	}
	images := [][]string{{reg.Ref("old", "v1")}, {"--schema=1", reg.Ref("new", "v1")}, {"--schema=2", reg.Ref("new", "v1")}}
	for _, args := range images {
		sees(t, p, want, args...)
		in := inspected(args...)
		if in.Schema1 == (args[0] == "--schema=2") || in.ID == "" || len(in.Layers) < 3 {
			t.Errorf("%s: %+v", args, in)
		}
		ids[strings.Join(args, " ")] = in.Digest
	}
	reg.Stop()
	for _, args := range images {
		sees(t, p, want, args...)
		if in := inspected(args...); in.Digest != ids[strings.Join(args, " ")] {
			t.Errorf("%s: offline it is %s", args, in.Digest)
		}
	}
}

// An artifact is mounted as its files, once more when its registry has gone.
func TestArtifactOfARegistry(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	noise := testkit.Noise(1, 9<<20)
	layers := []ocispec.Descriptor{}
	for _, l := range []struct {
		title, mediaType string
		data             []byte
	}{
		{"notes/read.me", "text/markdown", []byte("# Notes\n")},
		{"model.bin", "application/octet-stream", noise},
		{"", "application/x-unknown", []byte("no title")},
		{"", "application/x-chart.tar+gzip", testkit.Encode(t, testkit.Gzip, testkit.File("chart/values", []byte("a: 1\n"))).Blob},
	} {
		d := ocispec.Descriptor{MediaType: l.mediaType, Digest: testkit.PutBlob(t, reg.Host(), "art", l.data), Size: int64(len(l.data))}
		if l.title != "" {
			d.Annotations = map[string]string{ocispec.AnnotationTitle: l.title}
		}
		layers = append(layers, d)
	}
	testkit.PutBlob(t, reg.Host(), "art", []byte("{}"))
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x-notes",
		Config: ocispec.DescriptorEmptyJSON, Layers: layers,
	})
	if err != nil {
		t.Fatal(err)
	}
	testkit.PutManifest(t, reg.Host(), "art", "v1", ocispec.MediaTypeImageManifest, raw)
	p := testkit.NewPeel(t)
	want := map[string]string{
		"notes/read.me": "# Notes\n", "model.bin": string(noise), layers[2].Digest.Encoded(): "no title", "chart/values": "a: 1\n",
	}
	for range 2 {
		root := p.Mount(reg.Ref("art", "v1"))
		got := map[string]string{}
		for name := range want {
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Error(err)
			}
			got[name] = string(data)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		p.Umount(root)
		reg.Stop()
	}
	var in inspection
	if err := json.Unmarshal([]byte(p.Must("inspect", "--json", reg.Ref("art", "v1")).Stdout), &in); err != nil {
		t.Fatal(err)
	}
	if in.ArtifactType != "application/x-notes" || in.ID != "" || in.Digest != digest.FromBytes(raw).String() {
		t.Errorf("%+v", in)
	}
}

// What is named by a relative path is served from another folder, and listed by
// its whole name.
func TestMountHere(t *testing.T) {
	t.Parallel()
	p := testkit.NewPeel(t)
	dir := t.TempDir()
	l, err := testkit.NewLayout(filepath.Join(dir, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Image(testkit.Encode(t, testkit.PlainTar, testkit.File("a", []byte("content"))))
	if err == nil {
		err = l.Tag("v1", d)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--pull=never"}, {"--early"}, {"--require=proved", "--index=index.invalid/repo"}} {
		on := p.Dir()
		var m mounted
		cmd := p.Command(t.Context(), append(append([]string{"mount", "--json"}, args...), "oci:layout:v1", on)...)
		cmd.Dir = dir
		if r := p.Finish(cmd); json.Unmarshal([]byte(r.Stdout), &m) != nil {
			t.Fatalf("%s: %+v", args, r)
		}
		if m.Reference != "oci:"+dir+"/layout:v1" || !m.Local || !m.Pinned {
			t.Errorf("%s: %+v", args, m)
		}
		if ps := p.Must("ps").Stdout; !strings.Contains(ps, m.Reference) {
			t.Errorf("%s: ps does not list it:\n%s", args, ps)
		}
		if data, err := os.ReadFile(filepath.Join(on, "a")); err != nil || string(data) != "content" {
			t.Errorf("%s: %q, %v", args, data, err)
		}
		p.Umount(on)
	}
	if r := p.Run("mount", "oci:"+dir+"/layout:v1", dir); r.Code != 1 || !strings.Contains(r.Stderr, "lies in it") {
		t.Errorf("mounted over itself: %+v", r)
	}
	if r := p.Run("mount", "--platform=linux/s390x", "oci:"+dir+"/layout:v1", p.Dir()); r.Code != testkit.NotFound {
		t.Errorf("another platform: %+v", r)
	}
}

// A registry without byte ranges gives away every layer once, and it is told
// why.
func TestNoRanges(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	content := testkit.Noise(3, 16<<20)
	l := testkit.Encode(t, testkit.Stargz, testkit.File("a", content[:8<<20]), testkit.File("b", content[8<<20:]))
	reg.Publish(t, "big", "v1", l)
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.Inject(testkit.Fault{Path: "/blobs/", Do: testkit.IgnoreRange})
	p := testkit.NewPeel(t)
	for round := range 2 {
		root := p.Mount(proxy.Ref("big", "v1"))
		for name, want := range map[string][]byte{"a": content[:8<<20], "b": content[8<<20:]} {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes that are not the file's, %v", name, len(got), err)
			}
		}
		p.Umount(root)
		var in inspection
		if err := json.Unmarshal([]byte(p.Must("inspect", "--json", proxy.Ref("big", "v1")).Stdout), &in); err != nil {
			t.Fatal(err)
		}
		if got := in.Layers[0]; got.Access != "streamed" || !strings.Contains(got.Reason, "byte range") {
			t.Errorf("%+v", got)
		}
		n := testkit.Bytes(proxy.Log())
		// What was on its way when the first answer was given up counts too.
		if round == 1 && n > 0 || n > l.Desc.Size+8<<20 {
			t.Errorf("round %d: %d bytes for a layer of %d", round, n, l.Desc.Size)
		}
	}
}
