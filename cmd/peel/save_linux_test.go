package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// stock is a layout with two images that share a layer, an index of them with
// an attestation and an artifact, and an image of Docker's.
type stock struct {
	*testkit.Layout
	one, two, index, docker ocispec.Descriptor
	odd                     ocispec.Descriptor // index, and a document of an unknown type
	below                   testkit.Layer
}

func newStock(t *testing.T) stock {
	t.Helper()
	l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "shelf"))
	if err != nil {
		t.Fatal(err)
	}
	s := stock{Layout: l, below: testkit.Encode(t, testkit.Gzip, testkit.File("a", testkit.Noise(1, 300_000)))}
	must := func(d ocispec.Descriptor, err error) ocispec.Descriptor {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	s.one = must(l.Image(s.below, testkit.Encode(t, testkit.Zstd, testkit.File("b", []byte("b")))))
	s.two = must(l.Image(s.below))
	s.docker = must(l.DockerImage(s.below))
	artifact := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x-wine",
		Config: must(l.Blob(ocispec.MediaTypeEmptyJSON, []byte("{}"))),
		Layers: []ocispec.Descriptor{must(l.Blob("text/plain", []byte("bottle")))},
	}
	attestation := artifact
	attestation.ArtifactType, attestation.Config = "", must(l.Blob(ocispec.MediaTypeImageConfig, []byte(`{"os":"unknown"}`)))
	attestation.Layers = []ocispec.Descriptor{must(l.Blob("application/vnd.in-toto+json", []byte(`{"x":1}`)))}
	entries := []ocispec.Descriptor{s.one, s.two, must(l.Document(artifact.MediaType, artifact)), must(l.Document(artifact.MediaType, attestation))}
	for i, arch := range []string{"amd64", "arm64", "", "unknown"} {
		if arch != "" {
			entries[i].Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		}
	}
	s.index = must(l.Index(ocispec.MediaTypeImageIndex, append(entries, must(l.Index(ocispec.MediaTypeImageIndex, entries[1], entries[0])))...))
	s.odd = must(l.Index(ocispec.MediaTypeImageIndex, s.index,
		must(l.Document("application/x-other", map[string]any{"schemaVersion": 2, "mediaType": "application/x-other"}))))
	for tag, d := range map[string]ocispec.Descriptor{"one": s.one, "two": s.two, "all": s.index, "odd": s.odd, "docker": s.docker} {
		if err := l.Tag(tag, d); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// skopeoFinds compares the manifest that skopeo reads, with all its blobs.
func skopeoFinds(t *testing.T, ref string, want ocispec.Descriptor) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	testkit.RunSkopeo(t, "copy", "--quiet", "--preserve-digests", ref, "dir:"+to)
	raw, err := os.ReadFile(filepath.Join(to, "manifest.json"))
	if err != nil || digest.FromBytes(raw) != want.Digest {
		t.Errorf("skopeo finds %s in %s, want %s (%v)", digest.FromBytes(raw), ref, want.Digest, err)
	}
}

func TestSave(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	for _, tag := range []string{"one", "all", "docker"} {
		reg.Push(t, s.Dir, tag, "shelf")
	}
	for _, tc := range []struct {
		name, ref string
		want      ocispec.Descriptor
		skip      string // a transport in which skopeo does not find such manifests
	}{
		{"of a registry", reg.Ref("shelf", "one"), s.one, ""},
		{"behind an index", reg.Ref("shelf", "all"), s.one, ""},
		{"of Docker's types", reg.Ref("shelf", "docker"), s.docker, "oci"},
		{"by digest", reg.Host() + "/shelf@" + s.one.Digest.String(), s.one, ""},
		{"of a layout", "oci:" + s.Dir + ":one", s.one, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, to := range []string{"oci:" + dir + "/layout:t", "oci-archive:" + dir + "/layout.tar:t", "dir:" + dir + "/dir", dir + "/docker.tar"} {
				got := peel(t, "save", tc.ref, "--platform", "linux/amd64", "-o", to)
				if got.code != 0 || got.err != "" || !strings.Contains(got.out, "@"+tc.want.Digest.String()+"\n") {
					t.Fatalf("to %s: %+v", to, got)
				}
				if !strings.Contains(to, ":") || tc.skip != "" && strings.HasPrefix(to, tc.skip) {
					continue
				}
				skopeoFinds(t, to, tc.want)
			}
			// No manifest is in an archive of docker's; the diffIDs of its
			// configuration are what skopeo compares.
			testkit.RunSkopeo(t, "copy", "--quiet", "docker-archive:"+dir+"/docker.tar", "dir:"+dir+"/copy")
			if got := leftIn(t, dir); !slices.Equal(got, []string{"copy", "dir", "docker.tar", "layout", "layout.tar"}) {
				t.Errorf("left: %v", got)
			}
		})
	}
}

func leftIn(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// blobsOf lists the blobs of a layout, in a folder or a tar.
func blobsOf(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		return leftIn(t, filepath.Join(path, "blobs", "sha256"))
	}
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			out = append(out, name)
		}
	}
}

// TestSaveAll: all that the index leads to is saved, once.
func TestSaveAll(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	dir := t.TempDir()
	want := slices.DeleteFunc(blobsOf(t, s.Dir), func(hex string) bool { return hex == s.docker.Digest.Encoded() })
	raw, err := os.ReadFile(filepath.Join(s.Dir, "blobs", "sha256", s.docker.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	var docker ocispec.Manifest
	if err := json.Unmarshal(raw, &docker); err != nil {
		t.Fatal(err)
	}
	want = slices.DeleteFunc(want, func(hex string) bool { return hex == docker.Config.Digest.Encoded() })
	for _, to := range []string{"oci:" + dir + "/layout", "oci-archive:" + dir + "/layout.tar"} {
		got := peel(t, "save", "--all", "oci:"+s.Dir+":odd", "-o", to)
		if got.code != 0 || got.err != "" || got.out != "oci:"+s.Dir+":odd@"+s.odd.Digest.String()+"\n" {
			t.Fatalf("%+v", got)
		}
		_, path, _ := strings.Cut(to, ":")
		if d := cmp.Diff(want, blobsOf(t, path)); d != "" {
			t.Error(d)
		}
		if got := peel(t, "cat", "--platform", "linux/arm64", to+":odd:/a"); got.code != 0 || len(got.out) != 300_000 {
			t.Errorf("%d bytes: %d %s", len(got.out), got.code, got.err)
		}
	}
	if got := peel(t, "save", "--all", "oci:"+s.Dir+":one", "-o", "oci:"+dir+"/one"); got.code != 0 || len(blobsOf(t, dir+"/one")) != 4 {
		t.Errorf("an image alone: %+v", got)
	}
	deep := s.one
	for range maxSavedDepth + 1 {
		if deep, err = s.Index(ocispec.MediaTypeImageIndex, deep); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tag("deep", deep); err != nil {
		t.Fatal(err)
	}
	if got := peel(t, "save", "--all", "oci:"+s.Dir+":deep", "-o", "oci:"+dir+"/deep"); got.code != 1 || !strings.Contains(got.err, "nest more than 8 deep") {
		t.Errorf("indexes within indexes: %+v", got)
	}
}

// Several images of a file share layers; standard output takes the same bytes.
func TestSaveSeveral(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	for _, tag := range []string{"one", "two"} {
		reg.Push(t, s.Dir, tag, "shelf")
	}
	file := filepath.Join(t.TempDir(), "several.tar")
	args := []string{"save", "--platform", "linux/amd64", reg.Ref("shelf", "one"), reg.Ref("shelf", "two")}
	if got := peel(t, append(args, "-o", file)...); got.code != 0 || strings.Count(got.out, "\n") != 2 {
		t.Fatalf("%+v", got)
	}
	raw, err := os.ReadFile(file)
	if err != nil || len(raw) > 400_000 {
		t.Errorf("%d bytes, %v: the shared layer is there twice", len(raw), err)
	}
	if got := peel(t, args...); got.code != 0 || got.out != string(raw) {
		t.Errorf("standard output: %d bytes, exit code %d %s", len(got.out), got.code, got.err)
	}
	for tag, want := range map[string]int{"one": 2, "two": 1} {
		got := testkit.RunSkopeo(t, "inspect", "docker-archive:"+file+":"+reg.Ref("shelf", tag))
		var found struct{ Layers []string }
		if err := json.Unmarshal([]byte(got), &found); err != nil || len(found.Layers) != want {
			t.Errorf("%s: %d layers, %v", tag, len(found.Layers), err)
		}
	}
	layout := filepath.Join(t.TempDir(), "layout")
	if got := peel(t, append(args, "-o", "oci:"+layout)...); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	skopeoFinds(t, "oci:"+layout+":"+reg.Ref("shelf", "two"), s.two)
	// What is saved again keeps its names, whichever way it was named.
	again := filepath.Join(t.TempDir(), "again.tar")
	if got := peel(t, "save", "docker-archive:"+file+":@0", "docker-archive:"+file+":@1", "-o", again); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if copied, err := os.ReadFile(again); err != nil || !bytes.Equal(copied, raw) {
		t.Errorf("saved again: %d bytes, were %d (%v)", len(copied), len(raw), err)
	}
}

// What cannot be saved whole leaves nothing behind, and what was there stays.
func TestSaveLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	blob := filepath.Join(s.Dir, "blobs", "sha256", s.below.Desc.Digest.Encoded())
	raw, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(blob, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, to := range []string{"oci:", "oci-archive:", "docker-archive:", "dir:"} {
		for _, tc := range []struct {
			name string
			ctx  context.Context
			ref  string
			code int
		}{
			{"corrupt", t.Context(), "oci:" + s.Dir + ":one", exitVerification},
			{"missing", t.Context(), "oci:" + s.Dir + ":none", exitNotFound},
			{"interrupted", cancelled, "oci:" + s.Dir + ":one", exitInterrupted},
		} {
			t.Run(to+tc.name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				args := []string{"--cache", filepath.Join(t.TempDir(), "cache"), "save", tc.ref, "-o", to + dir + "/x"}
				var want []string
				if strings.HasSuffix(to, "archive:") {
					want = []string{"x"}
					if err := os.WriteFile(filepath.Join(dir, "x"), []byte("kept"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				var out, errs bytes.Buffer
				if code := run(tc.ctx, args, streams{out: &out, err: &errs}); code != tc.code || out.Len() > 0 {
					t.Errorf("exit code %d, want %d: %s%s", code, tc.code, &out, &errs)
				}
				if d := cmp.Diff(want, leftIn(t, dir)); d != "" {
					t.Error(d)
				}
				if want != nil {
					if got, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(got) != "kept" {
						t.Errorf("the file that was there holds %q, %v", got, err)
					}
				}
			})
		}
	}
}

func TestSaveUsage(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	one := "oci:" + s.Dir + ":one"
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"nothing", nil, 2, "usage: peel save"},
		{"two into a folder", []string{one, one, "-o", "dir:" + dir + "/y"}, 2, "holds one image"},
		{"two under one name", []string{one, one, "-o", "oci:" + dir + "/y:t"}, 2, `"t" is the name of one image`},
		{"all platforms for docker", []string{one, "--all", "-o", dir + "/y.tar"}, 2, "save all to oci:DIR"},
		{"all and one platform", []string{one, "--all", "--platform", "linux/amd64", "-o", "oci:" + dir + "/y"}, 2, "give one of the two"},
		{"folder in use", []string{one, "-o", "dir:" + dir}, 2, "the folder is not empty"},
		{"folder for an archive", []string{one, "-o", dir}, 2, "no file"},
		{"no layout", []string{one, "-o", "oci:" + dir}, 1, "no image layout"},
		{"no folder", []string{one, "-o", dir + "/no/such/y.tar"}, 1, dir + "/no/such/y.tar"},
		{"unknown form", []string{one, "-o", "podman:x"}, 2, "oci-archive:FILE"},
		{"unknown platform", []string{one, "--platform", "a/b/c/d", "-o", dir + "/y.tar"}, 2, "os/arch"},
		{"other platform", []string{"oci:" + s.Dir + ":all", "--platform", "linux/s390x", "-o", dir + "/y.tar"}, 3, "linux/arm64"},
		{"artifact for docker", []string{"oci:" + s.Dir + "@" + artifactOf(t, s).String(), "-o", dir + "/y.tar"}, 1, "save it to oci:DIR or dir:DIR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := peel(t, append([]string{"save"}, tc.args...)...)
			if got.code != tc.code || !strings.Contains(got.err, tc.says) || got.out != "" {
				t.Errorf("%+v, want %d and %q", got, tc.code, tc.says)
			}
		})
	}
	t.Cleanup(func() {
		if got := leftIn(t, dir); !slices.Equal(got, []string{"x"}) {
			t.Errorf("left: %v", got)
		}
	})
}

// artifactOf is the artifact of the index of the stock.
func artifactOf(t *testing.T, s stock) digest.Digest {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.Dir, "blobs", "sha256", s.index.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	return index.Manifests[2].Digest
}

func TestSaveArtifact(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	dir := t.TempDir()
	for _, to := range []string{"oci:" + dir + "/layout:t", "dir:" + dir + "/dir"} {
		if got := peel(t, "save", "oci:"+s.Dir+"@"+artifactOf(t, s).String(), "-o", to); got.code != 0 || got.err != "" {
			t.Errorf("%+v", got)
		}
		if got := peel(t, "cat", to+":/"+digest.FromString("bottle").Encoded()); got.out != "bottle" {
			t.Errorf("%+v", got)
		}
	}
}

// TestSaveForeign: layers with URLs are left out, or read from there.
func TestSaveForeign(t *testing.T) {
	t.Parallel()
	l := testkit.Encode(t, testkit.Gzip, testkit.File("a", []byte("a")))
	layout, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	files := testkit.NewFiles(t, map[string][]byte{"layer": l.Blob})
	l.Desc.MediaType = ocispec.MediaTypeImageLayerNonDistributableGzip //nolint:staticcheck // still to be read
	l.Desc.URLs = []string{"http://" + files.Host() + "/layer"}
	d, err := layout.Image(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := layout.Tag("t", d); err != nil {
		t.Fatal(err)
	}
	reg := testkit.NewRegistry(t)
	reg.Push(t, layout.Dir, "t", "foreign")
	for _, tc := range []struct {
		name string
		args []string
		says string
		n    int // layers that are there
	}{
		{"left out", nil, "1 layers that only their makers may distribute were left out", 0},
		{"read", []string{"--foreign-layers", files.Host()}, "", 1},
	} {
		for _, to := range []string{"oci:", "oci-archive:", "docker-archive:", "dir:"} {
			t.Run(tc.name+"/"+to, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "x")
				got := peel(t, append(tc.args, "save", reg.Ref("foreign", "t"), "--platform", "linux/amd64", "-o", to+path)...)
				if got.code != 0 || !strings.Contains(got.err, tc.says) || (got.err == "") != (tc.says == "") {
					t.Fatalf("%+v", got)
				}
				var there []string
				switch to {
				case "dir:":
					there = leftIn(t, path)
				case "docker-archive:":
					raw, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(raw, []byte("LayerSources")) != (tc.n == 0) {
						t.Error("manifest.json is not right about where layers come from")
					}
					if bytes.Contains(raw, l.Blob) {
						there = append(there, l.Desc.Digest.Encoded())
					}
				default:
					there = blobsOf(t, path)
				}
				if to == "oci:" {
					again := peel(t, append(tc.args, "save", to+path, "-o", "dir:"+path+"-again")...)
					if again.code != 0 || !strings.Contains(again.err, tc.says) || len(leftIn(t, path+"-again")) != 3+tc.n {
						t.Errorf("from there: %+v", again)
					}
				}
				if n := len(slices.DeleteFunc(there, func(s string) bool { return s != l.Desc.Digest.Encoded() })); n != tc.n {
					t.Errorf("%d layers are there", n)
				}
			})
		}
	}
}
