package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
)

// peelIn runs the program with a cache.
func peelIn(t *testing.T, cacheDir string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"--cache", cacheDir}, args...), streams{out: &out, err: &errs})
	return outcome{code, out.String(), errs.String()}
}

// several pushes images of one repository that have layers in common, and
// returns their references.
func several(t *testing.T, reg *testkit.Registry) []string {
	t.Helper()
	layer := func(f testkit.Form, seed uint64) testkit.Layer {
		return testkit.Encode(t, f, testkit.File(string(f), testkit.Noise(seed, 2_000_000)))
	}
	gz, esgz, zst := layer(testkit.Gzip, 1), layer(testkit.Stargz, 2), layer(testkit.Zstd, 3)
	var refs []string
	for i, layers := range [][]testkit.Layer{{gz, esgz}, {gz, zst}, {esgz, zst, gz}, {gz, gz}} {
		tag := "v" + strconv.Itoa(i)
		reg.Publish(t, "several", tag, layers...)
		refs = append(refs, reg.Ref("several", tag))
	}
	return refs
}

// Several pulls in one process share a cache, and each other's layers.
func TestPullAtOnce(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	refs := several(t, reg)
	dir := filepath.Join(t.TempDir(), "cache")
	var all sync.WaitGroup
	for _, args := range [][]string{
		append([]string{"pull"}, refs...),
		{"pull", "--quiet", refs[0]},
		{"pull", "--json", refs[2], refs[3]},
		{"pull", "--all-tags", reg.Host() + "/several"},
		{"images"},
		{"images", "--json"},
	} {
		all.Go(func() {
			if got := peelIn(t, dir, args...); got.code != 0 || got.err != "" {
				t.Errorf("%v: %+v", args, got)
			}
		})
	}
	all.Wait()
	reg.Stop()
	for _, ref := range refs {
		if got := peelIn(t, dir, "ls", "--pull", "never", ref); got.code != 0 {
			t.Errorf("%+v", got)
		}
	}
	var args []string
	for _, ref := range refs {
		args = append(args, "images", "rm", ref)
		if got := peelIn(t, dir, args[len(args)-3:]...); got.code != 0 {
			t.Errorf("%+v", got)
		}
	}
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"index", "tree", "image/manifest", "image/config", "claims"} {
		if left, err := c.Keys(kind); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", kind, left, err)
		}
	}
}

func TestImagesByName(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	ref := several(t, reg)[0]
	dir := filepath.Join(t.TempDir(), "cache")
	if got := peelIn(t, dir, "pull", ref); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	images := fs.NewImages(shelf{c}, filepath.Join(dir, "mounts"))
	want, err := images.Get(t.Context(), ref)
	if err != nil || want.Name != ref || want.Present != want.Total || want.Total < 4_000_000 {
		t.Fatalf("%+v, %v", want, err)
	}
	if err := images.Put(t.Context(), "other", want.Digest); err != nil {
		t.Fatal(err)
	}
	got, err := images.Get(t.Context(), "docker.io/library/other:latest")
	want.Name, want.Resolved, want.Used = "docker.io/library/other:latest", got.Resolved, got.Used
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := images.Put(t.Context(), "missing", digest.FromString("x")); !errors.Is(err, fs.ErrNoImage) {
		t.Error(err)
	}
	if err := images.Put(t.Context(), "Bad", want.Digest); !errors.Is(err, manifest.ErrReference) {
		t.Error(err)
	}
	for _, name := range []string{"no", "sha256:" + strings.Repeat("0", 64), strings.Repeat("0", 12), ""} {
		if _, err := images.Remove(t.Context(), name); !errors.Is(err, fs.ErrNoImage) {
			t.Errorf("%q: %v", name, err)
		}
	}

	// Somebody streams one of its layers: the name stays until that can go.
	if _, err := images.Remove(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	keys, err := c.Keys("index")
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	stage, err := c.Stage(t.Context(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	if r, err := images.Remove(t.Context(), ref); !errors.Is(err, fs.ErrInUse) || len(r.Names) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := stage.Close(); err != nil {
		t.Error(err)
	}
	if r, err := images.Remove(t.Context(), want.Digest.String()); err != nil || !slices.Equal(r.Names, []string{ref}) {
		t.Errorf("%+v, %v", r, err)
	}
	if left, err := images.List(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// A digest is a name of its own, although the image is here by another one.
func TestPullByDigest(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	tag := several(t, reg)[0]
	dir := filepath.Join(t.TempDir(), "cache")
	if got := peelIn(t, dir, "pull", tag); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	found := peelIn(t, dir, "resolve", tag)
	_, d, _ := strings.Cut(found.out, "sha256:")
	name := reg.Host() + "/several@sha256:" + d[:64]
	for _, says := range []string{"Downloaded newer image", "Image is up to date"} {
		if got := peelIn(t, dir, "pull", name); got.code != 0 || !strings.Contains(got.out, says) {
			t.Errorf("%+v", got)
		}
	}
	if got := peelIn(t, dir, "images", "rm", tag); got.code != 0 {
		t.Errorf("%+v", got)
	}
	reg.Stop()
	if got := peelIn(t, dir, "cat", "--pull", "never", name+":/"+string(testkit.Gzip)); got.code != 0 {
		t.Errorf("%d: %s", got.code, got.err)
	}
	if got := peelIn(t, dir, "images"); !strings.Contains(got.out, name) {
		t.Errorf("%+v", got)
	}
}

// A pull ends with the image here, whatever somebody removes meanwhile.
func TestPullWhileRemoved(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	ref := several(t, reg)[0]
	dir := filepath.Join(t.TempDir(), "cache")
	for range 40 {
		var remover sync.WaitGroup
		remover.Go(func() { peelIn(t, dir, "images", "rm", ref) })
		if got := peelIn(t, dir, "pull", "--quiet", ref); got.code != 0 {
			t.Errorf("%+v", got)
		}
		remover.Wait()
	}
}

// The images of an index are listed one by one, and go together.
func TestPullPlatforms(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, s.Dir, "all", "shelf")
	ref := reg.Ref("shelf", "all")
	dir := filepath.Join(t.TempDir(), "cache")
	for i, platform := range []string{"linux/arm64", "linux/amd64"} {
		if got := peelIn(t, dir, "pull", "--platform", platform, ref); got.code != 0 || !strings.Contains(got.out, "Digest: "+s.index.Digest.String()) {
			t.Fatalf("%+v", got)
		}
		got := peelIn(t, dir, "images")
		if n := strings.Count(got.out, ref); n != i+1 || !strings.Contains(got.out, platform) {
			t.Errorf("%s", got.out)
		}
	}
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := fs.NewImages(shelf{c}, filepath.Join(dir, "mounts")).Get(t.Context(), ref)
	if err != nil || info.Digest != s.index.Digest || info.Manifest != s.one.Digest && info.Manifest != s.two.Digest {
		t.Errorf("%+v, %v", info, err)
	}
	if got := peelIn(t, dir, "images", "rm", ref); got.code != 0 {
		t.Errorf("%+v", got)
	}
	for _, kind := range []string{"index", "tree", "image/manifest", "image/config", "claims"} {
		if left, err := c.Keys(kind); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", kind, left, err)
		}
	}
}

// Indexes that list one another a thousand times each are looked at once.
func TestImagesOfHostileIndexes(t *testing.T) {
	t.Parallel()
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("a manifest that is not here")
	for range 3 {
		index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
		index.SchemaVersion = 2
		for range 1000 {
			index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: 10})
		}
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		d = digest.FromBytes(raw)
		if err := errors.Join(c.Write("image/manifest", d, raw), c.SetRef("docker.io/library/a:latest", d)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if all, err := fs.NewImages(shelf{c}, t.TempDir()).List(ctx); err != nil || len(all) != 1 || all[0].Manifest != "" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestOwnNames(t *testing.T) {
	t.Parallel()
	d, e := digest.FromString("d"), digest.FromString("e")
	entry := func(d digest.Digest, names ...string) local.Entry {
		return local.Entry{Names: names, Desc: ocispec.Descriptor{Digest: d}}
	}
	for _, tc := range []struct {
		name, ref string
		entries   []local.Entry
		want      []string
	}{
		{"archive", "docker-archive:/f.tar", []local.Entry{entry(e, "x"), entry(d, "alpine:3", "host.io/a:b")}, []string{"docker.io/library/alpine:3", "host.io/a:b"}},
		{"nameless in an archive", "docker-archive:/f.tar:@1", []local.Entry{entry(e, "x"), entry(d, "@1")}, []string{"docker-archive:/f.tar:@1"}},
		{"tag in a layout", "oci:/dir:v1", []local.Entry{entry(d, "v1")}, []string{"oci:/dir:v1"}},
		{"name in a layout", "oci:/dir:alpine:3", []local.Entry{entry(d, "alpine:3", "v1")}, []string{"docker.io/library/alpine:3"}},
		{"no name at all", "dir:/dir", []local.Entry{entry(d)}, []string{"dir:/dir"}},
		{"a name that means a place", "oci:/dir", []local.Entry{entry(d, "oci:/etc")}, []string{"oci:/dir"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref, err := manifest.ParseReference(tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, ownNames(ref, tc.entries, d)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPullShow(t *testing.T) {
	t.Parallel()
	d := digest.FromString("layer")
	at := func(state string, done int64) []fs.LayerProgress {
		return []fs.LayerProgress{{Digest: d, State: state, Done: done, Total: 10}}
	}
	play := func(s pullShow) {
		s.image("i", pullOutcome{})
		for _, l := range [][]fs.LayerProgress{
			at("waiting", 0), at("indexing", 0), at("streaming", 3), at("streaming", 3), at("streaming", 7), at("streaming", 10),
			at("complete", 10),
		} {
			s.layers("i", l)
		}
		s.image("j", pullOutcome{})
		s.image("j", pullOutcome{ended: true, failure: &failure{Message: "broken", Code: 1}})
		s.layers("i", at("already exists", 10))
		s.image("i", pullOutcome{ended: true, pulled: &fs.Pulled{Reference: "i", Digest: d, New: true, Bytes: 7}, names: []string{"n"}})
		s.close()
	}
	short := shortDigest(d.String())
	for _, tc := range []struct {
		name string
		show func(w io.Writer) pullShow
		want string
	}{
		{"lines", func(w io.Writer) pullShow { return &pullLines{pullEnds: pullEnds{w: w}} }, "Pulling i\n" +
			short + ": waiting\n" + short + ": downloading\n" + short + ": verifying\n" + short + ": complete\nPulling j\n" + short + ": already exists\n" +
			"Digest: " + d.String() + "\nStatus: Downloaded newer image for i\nKnown as n\n"},
		{"names", func(w io.Writer) pullShow { return &pullNames{w: w} }, "n\n"},
		{"events", func(w io.Writer) pullShow { return &pullEvents{w: w} }, `{"image":"i","state":"pulling","done":0,"total":0}
{"image":"i","layer":"` + d.String() + `","state":"waiting","done":0,"total":10}
{"image":"i","layer":"` + d.String() + `","state":"downloading","done":3,"total":10}
{"image":"i","layer":"` + d.String() + `","state":"downloading","done":7,"total":10}
{"image":"i","layer":"` + d.String() + `","state":"verifying","done":10,"total":10}
{"image":"i","layer":"` + d.String() + `","state":"complete","done":10,"total":10}
{"image":"j","state":"pulling","done":0,"total":0}
{"image":"j","state":"failed","done":0,"total":0,"error":{"message":"broken","code":1}}
{"image":"i","layer":"` + d.String() + `","state":"already exists","done":10,"total":10}
{"image":"i","state":"pulled","done":10,"total":10,"digest":"` + d.String() + `","new":true,"fetched":7,"names":["n"]}
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			play(tc.show(&out))
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("bars", func(t *testing.T) {
		t.Parallel()
		var out, ends strings.Builder
		play(&pullBars{bars: newPullBars(t.Context(), &out), ends: pullEnds{w: &ends}})
		if !strings.HasPrefix(ends.String(), "Digest: ") {
			t.Error(ends.String())
		}
	})
}
