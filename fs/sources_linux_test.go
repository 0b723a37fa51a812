package fs

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
)

// shown is what an image shows: its paths, and the digests of the first files.
func shown(t *testing.T, m *Image) []string {
	t.Helper()
	var out []string
	view, left := m.FS(t.Context()), 20 // files to be read: nothing of a layer is kept here
	err := iofs.WalkDir(view, ".", func(name string, d iofs.DirEntry, err error) error {
		if left--; err != nil || !d.Type().IsRegular() || left < 0 {
			out = append(out, name)
			return err
		}
		f, err := view.Open(name)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(f)
		out = append(out, fmt.Sprintf("%s %s", name, digest.FromBytes(data)))
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

// schema1 puts an image of Docker schema 1 into the hub's repository, from a
// folder as skopeo writes it.
func (h *hub) schema1(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		switch f.Name() {
		case "version":
		case "manifest.json":
			h.tag(repo, "v1", h.put(repo, "manifest", "application/json", raw))
		default:
			h.put(repo, "layer", "", raw)
		}
	}
}

// An image of schema 1 opens like any other, tells its ID, and needs no
// registry the second time.
func TestSchema1(t *testing.T) {
	t.Parallel()
	dir, _, found := testkit.Vectors(t)
	if !found {
		return
	}
	h, cache := newHub(), newFolder(t)
	h.schema1(t, filepath.Join(dir, "tricky-schema1"))
	log, told := logtest.NewNullLogger()
	o := Options{Registry: h, Cache: cache, Schema: 1, Log: logrus.NewEntry(log)}
	var first []string
	for round, asked := range []string{"layer layer layer manifest size size size", ""} {
		m, err := Open(t.Context(), repo+":v1", o)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.log(); got != asked {
			t.Errorf("round %d: asked for %q, want %q", round, got, asked)
		}
		if !m.Manifest.Schema1 || len(m.Config.RootFS.DiffIDs) != 3 || m.Manifest.Manifest.Config.Digest != digest.FromBytes(m.Config.Raw) {
			t.Errorf("round %d: %+v", round, m.Manifest)
		}
		if raw, err := cache.Read("image/config", m.Manifest.Manifest.Config.Digest); err != nil || !slices.Equal(raw, m.Config.Raw) {
			t.Errorf("round %d: the config is not kept: %v", round, err)
		}
		if all := told.AllEntries(); len(all) != 1 || !strings.Contains(all[0].Message, "schema 1") {
			t.Errorf("round %d: logged %v", round, all)
		}
		told.Reset()
		got := shown(t, m)
		if round == 0 {
			first = got
		}
		if d := cmp.Diff(first, got); d != "" || len(got) < 500 {
			t.Errorf("round %d: %d paths, %s", round, len(got), d)
		}
		h.log()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		o.Pull = PullNever
	}
	// To who does not ask for schema 1 the tag may mean something else.
	o.Schema = 0
	if _, err := Open(t.Context(), repo+":v1", o); err == nil {
		t.Error("what one schema resolves to counts for the other")
	}
}

// artifact puts one of three files into the hub's repository.
func (h *hub) artifact(t *testing.T) {
	t.Helper()
	file := func(name, title, content string) ocispec.Descriptor {
		d := h.put(repo, name, "text/plain", []byte(content))
		if title != "" {
			d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
		}
		return d
	}
	config := h.put(repo, "config", ocispec.MediaTypeEmptyJSON, []byte("{}"))
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/x-notes", Config: config,
		// The same bytes by two names are two files.
		Layers: []ocispec.Descriptor{file("one", "a/one", "1"), file("one", "two", "1"), file("three", "", "3")},
	}
	h.tag(repo, "v1", h.put(repo, "manifest", m.MediaType, encoded(t, m)))
}

func TestArtifactIsItsFiles(t *testing.T) {
	t.Parallel()
	h, cache := newHub(), newFolder(t)
	h.artifact(t)
	sum := func(s string) string { return " " + digest.FromString(s).String() }
	want := []string{".", digest.FromString("3").Encoded() + sum("3"), "a", "a/one" + sum("1"), "two" + sum("1")}
	slices.Sort(want)
	for round, asked := range []string{"manifest one one three", ""} {
		m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if got := h.log(); got != asked {
			t.Errorf("round %d: asked for %q, want %q", round, got, asked)
		}
		got := shown(t, m)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("round %d: %s", round, d)
		}
		h.log()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Of several that open an image at once, one asks for each thing.
func TestOpenedAtOnce(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, want string }{
		{"indexes", "artifact config index-a index-b manifest"},
		{"tables", "config layer-a layer-b manifest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var h *hub
			if tc.name == "indexes" {
				s := newPlainSample(t, nil)
				d, _ := s.peel(t, repo, &s.desc, 0, 1)
				s.tag(repo, "v1", d) // names them
				h = s.hub
			} else {
				h = newHub()
				var diffIDs []digest.Digest
				var descs []ocispec.Descriptor
				for i, name := range []string{"a", "b"} {
					l := testkit.Encode(t, testkit.Stargz, testkit.File(name, testkit.Noise(uint64(i), 1000)))
					h.put(repo, "layer-"+name, l.Desc.MediaType, l.Blob)
					diffIDs, descs = append(diffIDs, l.DiffID), append(descs, l.Desc)
				}
				h.image(t, repo, "v1", diffIDs, nil, descs...)
			}
			cache := newFolder(t)
			h.log()
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: cache})
					if err == nil {
						err = m.Close()
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			asked := strings.Split(h.log(), " ")
			if tc.name == "tables" {
				asked = slices.Compact(asked) // a layer is asked for its footer and its table
			}
			if got := strings.Join(asked, " "); got != tc.want {
				t.Errorf("asked for %s", got)
			}
		})
	}
}

// A registry that serves no byte ranges: layers are read whole, and it is said
// why.
func TestRangesRefused(t *testing.T) {
	t.Parallel()
	h, cache := newHub(), newFolder(t)
	h.whole = true
	l := testkit.Encode(t, testkit.Stargz, testkit.File("a", testkit.Noise(0, 1<<20)))
	h.put(repo, "layer", l.Desc.MediaType, l.Blob)
	h.image(t, repo, "v1", []digest.Digest{l.DiffID}, nil, l.Desc)
	for round := range 2 {
		m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		x := m.Layers()[0].Index()
		if x.Info.Trust != layer.Proved || !strings.HasPrefix(x.Reason(), refused) {
			t.Errorf("round %d: %s, because %q", round, x.Info.Trust, x.Reason())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if asked := h.log(); (asked == "") != (round == 1) {
			t.Errorf("round %d: asked for %q", round, asked)
		}
	}
}

// What a descriptor says of where its blob is reaches the registry, also from
// the cache.
func TestURLsReachTheRegistry(t *testing.T) {
	t.Parallel()
	h, cache := newHub(), newFolder(t)
	l := testkit.Encode(t, testkit.Gzip, testkit.File("a", []byte("a")))
	h.put(repo, "layer", l.Desc.MediaType, l.Blob)
	l.Desc.URLs = []string{"https://elsewhere.test/layer"}
	h.image(t, repo, "v1", []digest.Digest{l.DiffID}, nil, l.Desc)
	for range 2 {
		m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if len(h.urls) == 0 || slices.ContainsFunc(h.urls, func(u []string) bool { return !slices.Equal(u, l.Desc.URLs) }) {
			t.Errorf("the registry is told of %q", h.urls)
		}
		h.urls = nil
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
