package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// What is attached to an image in one repository is nothing to another.
func TestClaimsStayWithTheirImage(t *testing.T) {
	t.Parallel()
	s := newPlainSample(t, nil)
	d, annotations := s.peel(t, repo, &s.desc, 0, 1)
	s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
	const other = "hub.test/other"
	for name, raw := range s.docs {
		if rest, ok := strings.CutPrefix(name, repo); ok {
			s.docs[other+rest] = raw
		}
	}
	s.tag(other, "v1", s.desc)
	cache := newFolder(t)
	for _, step := range []struct {
		ref  string
		want opened
	}{
		{repo, opened{[]string{"peel", "peel"}, "config index-a index-b manifest referrers"}},
		{other, opened{[]string{noTable, noTable}, "layer-a layer-b manifest referrers"}},
		// What is proved is preferred from now on.
		{repo, opened{[]string{noTable, noTable}, ""}},
	} {
		got, err := s.open(t, step.ref+":v1", Options{Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		check(t, step.want, got)
	}
}

func TestRequireProved(t *testing.T) {
	t.Parallel()
	s := newPlainSample(t, nil)
	d, annotations := s.peel(t, repo, &s.desc, 0, 1)
	s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
	cache := newFolder(t)
	got, err := s.open(t, repo+":v1", Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	check(t, opened{[]string{"peel", "peel"}, "config index-a index-b manifest referrers"}, got)
	got, err = s.open(t, repo+":v1", Options{Cache: cache, Require: layer.Proved})
	if err != nil {
		t.Fatal(err)
	}
	reason := "only a proved index is to be used; " + noTable
	check(t, opened{[]string{reason, reason}, "layer-a layer-b"}, got)

	// A table of contents is refused, until it has been proved.
	l := testkit.Encode(t, testkit.Stargz, testkit.File("a", testkit.Noise(0, 1000)), testkit.File("b", testkit.Noise(1, 1000)))
	s.put("hub.test/esgz", "layer", l.Desc.MediaType, l.Blob)
	s.image(t, "hub.test/esgz", "v1", []digest.Digest{l.DiffID}, nil, l.Desc)
	for _, warm := range []bool{false, true} {
		_, err = s.open(t, "hub.test/esgz:v1", Options{Cache: cache, Require: layer.Proved})
		if !errors.Is(err, ErrNotProved) || !strings.Contains(err.Error(), l.Desc.Digest.String()) {
			t.Errorf("warm %v: %v", warm, err)
		}
		m, err := Open(t.Context(), "hub.test/esgz:v1", Options{Registry: s.hub, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if warm {
			err = cache.Write("index", m.Key(0), m.Layers()[0].Index().AsProved(l.DiffID).Encode())
		}
		if err := errors.Join(err, m.Close()); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Open(t.Context(), "hub.test/esgz:v1", Options{Registry: s.hub, Cache: cache, Require: layer.Proved})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// What of the cache is damaged is made anew, and a cache is enough to open an
// image by its indexes without a network.
func TestClaimsOfTheCache(t *testing.T) {
	t.Parallel()
	want := []string{"peel", "peel"}
	for _, tc := range []struct {
		name, kind string
		damage     func([]byte) []byte
		asked      string
	}{
		{"nothing", "claims", func(b []byte) []byte { return b }, ""},
		{"claims cut off", "claims", func(b []byte) []byte { return b[:len(b)/2] }, "referrers"},
		{"claims of no digests", "claims", func([]byte) []byte { return []byte(`{"layer":{}}`) }, "referrers"},
		{"indexes cut off", "index", func(b []byte) []byte { return b[:len(b)-1] }, "index-a index-b"},
		{"trees cut off", "tree", func(b []byte) []byte { return b[:len(b)-1] }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newPlainSample(t, nil)
			d, annotations := s.peel(t, repo, &s.desc, 0, 1)
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
			cache := newFolder(t)
			if _, err := s.open(t, repo+":v1", Options{Cache: cache}); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(cache.dir, tc.kind, "*"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, f := range files {
				raw, err := os.ReadFile(f)
				if err == nil {
					err = os.WriteFile(f, tc.damage(raw), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			o := Options{Cache: cache}
			if tc.asked == "" {
				o.Pull = PullNever
			}
			got, err := s.open(t, repo+":v1", o)
			if err != nil {
				t.Fatal(err)
			}
			check(t, opened{slices.Clone(want), tc.asked}, got)
		})
	}
}
