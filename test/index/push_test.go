//go:build linux

package index

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/peelfs/peel/internal/testkit"
)

const wantedSize = 10_000

// text is n bytes that are compressed to half, in blocks that refer to the ones
// before.
func text(seed uint64, n int) []byte {
	b := testkit.Noise(seed, n)
	for i := range b {
		b[i] = "0123456789abcdef"[b[i]&15]
	}
	return b
}

// layerOf is a layer of so many files of a megabyte, one of which is wanted.
func layerOf(t *testing.T, seed uint64, files int) testkit.Layer {
	t.Helper()
	dir := fmt.Sprintf("layer-%d", seed)
	entries := []testkit.Entry{testkit.Dir(dir).Xattr("user.layer", "x")}
	for i := range files {
		entries = append(entries, testkit.File(fmt.Sprintf("%s/%d", dir, i), text(1000*seed+uint64(i), 1_000_000)))
	}
	entries = append(entries, testkit.File(dir+"/wanted", text(seed, wantedSize)))
	return testkit.Encode(t, testkit.Gzip, entries...)
}

// wanted reads a layer's wanted file.
func wanted(t *testing.T, root string, seed uint64) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(root, fmt.Sprintf("layer-%d", seed), "wanted"))
	if err != nil || !bytes.Equal(got, text(seed, wantedSize)) {
		t.Errorf("layer %d: %d bytes, %v", seed, len(got), err)
	}
}

// seen is what inspect tells of how an image's layers are read, but for the
// digests of indexes.
func seen(t *testing.T, p *testkit.Peel, ref string, flags ...string) []inspected {
	t.Helper()
	layers := inspect(t, p, ref, flags...)
	for i := range layers {
		layers[i].Index = ""
	}
	return layers
}

// kind is a registry to share indexes by.
type kind struct {
	name string
	host func(t *testing.T) string
	more int // requests to find a referrer, besides the one
}

func kinds() []kind {
	return []kind{
		{"tags", func(t *testing.T) string { t.Helper(); return testkit.NewRegistry(t).Host() }, 1},
		{"referrers", func(t *testing.T) string {
			t.Helper()
			quiet := registry.Logger(log.New(io.Discard, "", 0))
			s := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), quiet))
			t.Cleanup(s.Close)
			return strings.TrimPrefix(s.URL, "http://")
		}, 0},
	}
}

// publish pushes layers as an image to any registry.
func publish(t *testing.T, ref string, layers ...testkit.Layer) {
	t.Helper()
	l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Image(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("it", d); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(all.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestAttached: an image whose indexes were pushed is lazy on a machine that
// has never seen it, with the requests of an eStargz image and one more.
func TestAttached(t *testing.T) {
	t.Parallel()
	layers := []testkit.Layer{layerOf(t, 1, 24), layerOf(t, 2, 24), layerOf(t, 3, 24)}
	size := int64(0)
	for _, l := range layers {
		size += l.Desc.Size
	}
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			proxy := testkit.NewProxy(t, k.host(t))
			ref := proxy.Ref("team/app", "v1")
			publish(t, ref, layers...)
			first := testkit.NewPeel(t).Must("index", "push", ref).Stdout
			again := testkit.NewPeel(t).Must("index", "push", ref).Stdout
			if first != again || !strings.Contains(first, "/team/app@sha256:") {
				t.Errorf("pushed\n%s, then\n%s", first, again)
			}
			if n := tags(t, proxy.Host(), "team/app"); len(n) > 2 { // the image's, and maybe that of referrers
				t.Errorf("tags %v", n)
			}
			proxy.Log()

			p := testkit.NewPeel(t)
			root := p.Mount(ref)
			wanted(t, root, 2)
			asked := slices.DeleteFunc(proxy.Log(), func(r testkit.Request) bool { return r.Path == "/v2/" })
			most := 2*len(layers) + 4 + 1 + k.more
			t.Logf("%d rounds, %d requests, %d of %d bytes", testkit.Rounds(asked), len(asked), testkit.Bytes(asked), size)
			if len(asked) > most || testkit.Bytes(asked) > size*4/100+(4<<20) {
				t.Errorf("%d requests, at most %d; %d of %d bytes", len(asked), most, testkit.Bytes(asked), size)
				for _, r := range asked {
					t.Logf("%s %s %s: %d, %d bytes", r.Method, r.Path, r.Range, r.Status, r.Bytes)
				}
			}
			want := inspected{Access: "lazy", Trust: "claimed", Origin: "peel index of " + proxy.Host() + "/team/app"}
			if d := cmp.Diff(slices.Repeat([]inspected{want}, 3), seen(t, p, ref)); d != "" {
				t.Error(d)
			}
			same(t, testkit.NewPeel(t).Mount(ref, "--require", "proved"), root)
			p.Umount(root)
			proxy.Log()
			wanted(t, p.Mount(ref), 2)
			if asked := proxy.Log(); len(asked) > 0 {
				t.Errorf("the second mount asked for %+v", asked)
			}
		})
	}
}

// same compares two trees with all their contents.
func same(t *testing.T, want, got string) {
	t.Helper()
	a, err := testkit.List(want)
	if err != nil {
		t.Fatal(err)
	}
	b, err := testkit.List(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range testkit.Differences(a, b, testkit.Exact) {
		t.Error(d)
	}
}

func tags(t *testing.T, host, repo string) []string {
	t.Helper()
	r, err := name.NewRepository(host+"/"+repo, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	list, err := remote.List(r, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestElsewhere: indexes in a repository of their own serve every image that
// has the layers.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	base, one, two := layerOf(t, 1, 12), layerOf(t, 2, 6), layerOf(t, 3, 2)
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			theirs, ours := k.host(t), k.host(t)
			publish(t, theirs+"/base:v1", base)
			publish(t, theirs+"/one:v1", base, one)
			publish(t, theirs+"/two:v1", base, two)
			repo := ours + "/fleet/indexes"
			p := testkit.NewPeel(t)
			first := p.Must("index", "push", "--to", repo, theirs+"/one:v1").Stdout
			again := testkit.NewPeel(t).Must("index", "push", "--to", repo, theirs+"/one:v1").Stdout
			if first != again {
				t.Errorf("pushed\n%s, then\n%s", first, again)
			}
			if n := tags(t, ours, "fleet/indexes"); len(n) != 3 {
				t.Errorf("tags %v", n)
			}

			lazy := inspected{Access: "lazy", Trust: "claimed", Origin: "peel index of " + repo}
			q := testkit.NewPeel(t)
			if d := cmp.Diff([]inspected{lazy, lazy}, seen(t, q, theirs+"/one:v1", "--index", repo)); d != "" {
				t.Error(d)
			}
			q.Setenv("PEEL_INDEX", repo)
			got := seen(t, q, theirs+"/two:v1")
			if got[0] != lazy || got[1].Access != "streamed" || got[1].Trust != "proved" {
				t.Errorf("%+v", got)
			}
			root := q.Mount(theirs + "/two:v1")
			wanted(t, root, 1)
			wanted(t, root, 3)
			same(t, testkit.NewPeel(t).Mount(theirs+"/two:v1"), root)
			if got := seen(t, testkit.NewPeel(t), theirs+"/base:v1"); got[0].Access != "streamed" {
				t.Errorf("without the repository: %+v", got)
			}
		})
	}
}

// TestLayout: what is written to a layout is what would be pushed.
func TestLayout(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "app", "v1", layerOf(t, 1, 2), testkit.Encode(t, testkit.Stargz, testkit.File("f", []byte("x"))))
	p := testkit.NewPeel(t)
	dir := filepath.Join(t.TempDir(), "layout")
	written := p.Must("index", "create", "--output", "oci:"+dir, reg.Ref("app", "v1")).Stdout
	pushed := p.Must("index", "push", reg.Ref("app", "v1")).Stdout
	_, a, _ := strings.Cut(written, "@")
	_, b, _ := strings.Cut(pushed, "@")
	if a != b || !strings.Contains(written, "no index made: it has a table of contents") {
		t.Errorf("written\n%s\npushed\n%s", written, pushed)
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		t.Error(err)
	}
}

// TestMayNotPush: a registry that denies it is told with what to do.
func TestMayNotPush(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "app", "v1", layerOf(t, 1, 1))
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.Inject(testkit.Fault{Path: "/blobs/uploads/", Do: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	}})
	r := testkit.NewPeel(t).Run("index", "push", proxy.Ref("app", "v1"))
	if r.Code != testkit.Unauthorized || !strings.Contains(r.Stderr, "--to REPO") {
		t.Errorf("%+v", r)
	}
	reg.Stop()
	if r := testkit.NewPeel(t).Run("index", "push", reg.Ref("app", "v1")); r.Code != testkit.Network {
		t.Errorf("offline: %+v", r)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	p := testkit.NewPeel(t)
	for name, args := range map[string][]string{
		"no image":                  {"create"},
		"unknown format":            {"create", "--format", "nydus", "alpine"},
		"soci without output":       {"create", "--format", "soci", "alpine"},
		"soci without destination":  {"push", "--format", "soci", "alpine"},
		"span size of peel indexes": {"create", "--span-size", "1000", "alpine"},
		"output that is no layout":  {"create", "--output", "registry.example/x", "alpine"},
		"tag of a repository":       {"push", "--to", "registry.example/x:v1", "alpine"},
		"unknown command":           {"pull", "alpine"},
		"verify nothing":            {"verify"},
	} {
		if r := p.Run(append([]string{"index"}, args...)...); r.Code != testkit.Usage || r.Stdout != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
