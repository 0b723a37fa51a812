package fs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/layer/ztoc"
	"github.com/peelfs/peel/manifest"
)

const (
	repo      = "hub.test/app"
	indexRepo = "hub.test/indexes"
)

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sample is an image of two plain layers, a and b, with indexes that nobody
// has pushed yet.
type plainSample struct {
	*hub
	layers []testkit.Layer
	packed [][]byte // peel's indexes
	ztocs  [][]byte
	desc   ocispec.Descriptor // of the manifest
}

func newPlainSample(t *testing.T, edit func(*plainSample, *ocispec.Manifest)) *plainSample {
	t.Helper()
	s := &plainSample{hub: newHub()}
	var diffIDs []digest.Digest
	var descs []ocispec.Descriptor
	for i, name := range []string{"a", "b"} {
		l := testkit.Encode(t, testkit.Gzip, testkit.File(name, testkit.Noise(uint64(i), 1000)))
		s.layers = append(s.layers, l)
		diffIDs, descs = append(diffIDs, l.DiffID), append(descs, s.put(repo, "layer-"+name, l.Desc.MediaType, l.Blob))
		x, err := layer.Stream(t.Context(), source{s.hub, repo, l.Desc}, l.Desc, l.DiffID, layer.StreamOptions{Stage: nothing{}})
		if err != nil {
			t.Fatal(err)
		}
		s.packed = append(s.packed, x.Pack())
		toc, err := ztoc.Build(t.Context(), bytes.NewReader(l.Blob), ztoc.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := toc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.ztocs = append(s.ztocs, raw)
	}
	change := func(m *ocispec.Manifest) {
		if edit != nil {
			edit(s, m)
		}
	}
	s.desc = s.image(t, repo, "v1", diffIDs, change, descs...)
	s.log()
	return s
}

// peel writes the artifact of the layers' indexes to a repository, which then
// has the blobs too.
func (s *plainSample) peel(t *testing.T, in string, subject *ocispec.Descriptor, layers ...int) (d ocispec.Descriptor, annotations map[string]string) {
	t.Helper()
	x := manifest.Indexes{Subject: subject, Layers: map[digest.Digest]ocispec.Descriptor{}}
	for _, i := range layers {
		x.Layers[s.layers[i].Desc.Digest] = s.put(in, fmt.Sprintf("index-%c", 'a'+i), manifest.LayerIndexType, s.packed[i])
	}
	raw, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return s.put(in, "artifact", m.MediaType, raw), m.Annotations
}

// soci writes the SOCI index of the layers to the image's repository.
func (s *plainSample) soci(t *testing.T, mediaType string, subject *ocispec.Descriptor, layers ...int) ocispec.Descriptor {
	t.Helper()
	x := ztoc.Index{}
	for _, i := range layers {
		x.Layers = append(x.Layers, ztoc.Layer{
			Digest: s.layers[i].Desc.Digest, TOC: s.put(repo, fmt.Sprintf("ztoc-%c", 'a'+i), ztoc.MediaTypeTOC, s.ztocs[i]),
		})
	}
	raw, _, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	m.Config.MediaType, m.Subject = mediaType, subject
	return s.put(repo, "soci", m.MediaType, encoded(t, m))
}

// opened is what a test wants to know of an opening.
type opened struct {
	origins []string // "SOCI", "peel" or, of a layer that was streamed, why
	asked   string
}

func (s *plainSample) open(t *testing.T, ref string, o Options) (opened, error) {
	t.Helper()
	o.Registry = s.hub
	log := logrus.New()
	log.SetOutput(io.Discard)
	o.Log = logrus.NewEntry(log)
	m, err := Open(t.Context(), ref, o)
	asked := s.log()
	if err != nil {
		return opened{asked: asked}, err
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	out := opened{asked: asked}
	for i, l := range m.Layers() {
		x := l.Index()
		what := x.Reason()
		if x.Origin() != "" {
			what, _, _ = strings.Cut(x.Origin(), " ")
		}
		if proved := x.Claim() == ""; proved != (x.Info.Trust == layer.Proved) {
			t.Errorf("layer %d: claim %q, trust %s", i, x.Claim(), x.Info.Trust)
		}
		out.origins = append(out.origins, strings.Clone(what)) // which is of a file that Close unmaps
	}
	for i, name := range []string{"a", "b"} {
		f, err := m.FS(t.Context()).Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, testkit.Noise(uint64(i), 1000)) {
			t.Errorf("%s: %d bytes that are not the file's, %v", name, len(got), err)
		}
	}
	s.log()
	return out, nil
}

const noTable = "no annotation with the digest of a table of contents"

func TestIndexesAreFound(t *testing.T) {
	t.Parallel()
	streamed := []string{noTable, noTable}
	for _, tc := range []struct {
		name    string
		edit    func(*plainSample, *ocispec.Manifest)
		prepare func(t *testing.T, s *plainSample, o *Options) (ref string)
		want    opened
	}{
		{
			"none", nil, func(*testing.T, *plainSample, *Options) string { return "" },
			opened{streamed, "config layer-a layer-b manifest referrers"},
		},
		{"peel's, all in one answer", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			d, annotations := s.peel(t, repo, &s.desc, 0, 1)
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
			return ""
		}, opened{[]string{"peel", "peel"}, "config index-a index-b manifest referrers"}},
		{"peel's, of a registry that drops annotations", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			d, _ := s.peel(t, repo, &s.desc, 0, 1)
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, nil)
			return ""
		}, opened{[]string{"peel", "peel"}, "artifact config index-a index-b manifest referrers"}},
		{"peel's before SOCI's", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			s.attach(repo, s.desc, s.soci(t, manifest.SOCIIndexV1, &s.desc, 0, 1), manifest.SOCIIndexV1, nil)
			d, annotations := s.peel(t, repo, &s.desc, 0, 1)
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
			return ""
		}, opened{[]string{"peel", "peel"}, "config index-a index-b manifest referrers"}},
		{"SOCI's of version 1, of one layer, among other things", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			s.attach(repo, s.desc, s.put(repo, "sbom", ocispec.MediaTypeImageManifest, []byte("{}")), "application/x-sbom", nil)
			s.attach(repo, s.desc, s.soci(t, manifest.SOCIIndexV1, &s.desc, 1), manifest.SOCIIndexV1, nil)
			return ""
		}, opened{[]string{"no index of this layer in the SOCI index v1", "SOCI"}, "config layer-a manifest referrers soci ztoc-b"}},
		{"SOCI's of version 1, named", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			s.tag(repo, "soci", s.soci(t, manifest.SOCIIndexV1, &s.desc, 0, 1))
			return repo + ":soci"
		}, opened{[]string{"SOCI", "SOCI"}, "config manifest soci ztoc-a ztoc-b"}},
		{
			"SOCI's of version 2", func(s *plainSample, m *ocispec.Manifest) {
				m.Annotations = map[string]string{ztoc.AnnotationIndexDigest: s.soci(t, ztoc.MediaTypeIndexV2, nil, 0, 1).Digest.String()}
			}, func(*testing.T, *plainSample, *Options) string { return "" },
			opened{[]string{"SOCI", "SOCI"}, "config manifest soci ztoc-a ztoc-b"},
		},
		{"a repository of indexes, by image", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			d, _ := s.peel(t, indexRepo, &s.desc, 0, 1)
			s.tag(indexRepo, manifest.IndexTag(s.desc.Digest), d)
			return "index"
		}, opened{[]string{"peel", "peel"}, "artifact config index-a index-b manifest"}},
		{"a repository of indexes, by layer", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			other := ocispec.Descriptor{Digest: digest.FromString("another image"), Size: 1}
			d, _ := s.peel(t, indexRepo, &other, 1)
			s.tag(indexRepo, manifest.IndexTag(s.layers[1].Desc.Digest), d)
			return "index"
		}, opened{
			[]string{"no index of this layer in the peel index of " + indexRepo, "peel"},
			"artifact config index-b layer-a manifest tag tag",
		}},
		{"a repository of indexes that has none", nil, func(t *testing.T, s *plainSample, _ *Options) string {
			d, annotations := s.peel(t, repo, &s.desc, 0, 1)
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
			return "index"
		}, opened{[]string{"peel", "peel"}, "config index-a index-b manifest referrers tag tag tag"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newPlainSample(t, tc.edit)
			o := Options{Cache: newFolder(t)}
			ref := tc.prepare(t, s, &o)
			if ref == "index" {
				ref, o.IndexRepo = "", named(t, indexRepo)
			}
			if ref == "" {
				ref = repo + ":v1"
			}
			got, err := s.open(t, ref, o)
			if err != nil {
				t.Fatal(err)
			}
			check(t, tc.want, got)
			tc.want.asked = "" // whatever it is: the second time nothing is asked for
			got, err = s.open(t, ref, o)
			if err != nil {
				t.Fatal(err)
			}
			check(t, tc.want, got)
		})
	}
}

func named(t *testing.T, name string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// check compares; of a reason, only the beginning has to be right.
func check(t *testing.T, want, got opened) {
	t.Helper()
	for i := range got.origins {
		if i < len(want.origins) && strings.HasPrefix(got.origins[i], want.origins[i]) {
			got.origins[i] = want.origins[i]
		}
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(opened{})); d != "" {
		t.Error(d)
	}
}

// What is wrong with an index is told, and the layer is read whole.
func TestIndexesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	gone := errdefs.ErrUnavailable
	attach := func(t *testing.T, s *plainSample) {
		t.Helper()
		d, annotations := s.peel(t, repo, &s.desc, 0, 1)
		s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
	}
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, s *plainSample)
		reason  string // of layer a
		asked   string
	}{
		{
			"no list of referrers", func(_ *testing.T, s *plainSample) { s.broken["referrers"] = gone },
			"what is attached to the image: unavailable; " + noTable, "config layer-a layer-b manifest referrers",
		},
		{
			"no blob", func(t *testing.T, s *plainSample) { attach(t, s); s.broken["index-a"] = gone },
			"index sha256:", "config index-a index-b layer-a manifest referrers",
		},
		{"other bytes", func(t *testing.T, s *plainSample) {
			s.packed[0] = bytes.Clone(s.packed[0])
			attach(t, s)
			raw := s.docs[repo+"@"+digest.FromBytes(s.packed[0]).String()]
			raw[len(raw)/2] ^= 1
		}, "index sha256:", "config index-a index-b layer-a manifest referrers"},
		{
			"cut off", func(t *testing.T, s *plainSample) { s.packed[0] = s.packed[0][:len(s.packed[0])/2]; attach(t, s) },
			"index sha256:", "config index-a index-b layer-a manifest referrers",
		},
		{
			"of another layer", func(t *testing.T, s *plainSample) { s.packed[0] = s.packed[1]; attach(t, s) },
			"index sha256:", "config index-b index-b layer-a manifest referrers",
		},
		{"a zTOC of another layer", func(t *testing.T, s *plainSample) {
			s.ztocs[0] = s.ztocs[1]
			s.attach(repo, s.desc, s.soci(t, manifest.SOCIIndexV1, &s.desc, 0, 1), manifest.SOCIIndexV1, nil)
		}, "index sha256:", "config layer-a manifest referrers soci ztoc-b ztoc-b"},
		{"a zTOC cut off", func(t *testing.T, s *plainSample) {
			s.ztocs[0] = s.ztocs[0][:len(s.ztocs[0])-8]
			s.attach(repo, s.desc, s.soci(t, manifest.SOCIIndexV1, &s.desc, 0, 1), manifest.SOCIIndexV1, nil)
		}, "index sha256:", "config layer-a manifest referrers soci ztoc-a ztoc-b"},
		{"of another image", func(t *testing.T, s *plainSample) {
			other := ocispec.Descriptor{Digest: digest.FromString("other"), Size: 1}
			s.attach(repo, s.desc, s.soci(t, manifest.SOCIIndexV1, &other, 0, 1), manifest.SOCIIndexV1, nil)
		}, "what is attached to the image: index sha256:", "config layer-a layer-b manifest referrers soci"},
		{"an artifact that is none", func(_ *testing.T, s *plainSample) {
			d := s.put(repo, "artifact", ocispec.MediaTypeImageManifest, []byte("{}"))
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, nil)
		}, "what is attached to the image: ", "artifact config layer-a layer-b manifest referrers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newPlainSample(t, nil)
			tc.prepare(t, s)
			cache := newFolder(t)
			for round, asked := range []string{tc.asked, ""} {
				got, err := s.open(t, repo+":v1", Options{Cache: cache})
				if err != nil {
					t.Fatal(err)
				}
				if got.asked != asked {
					t.Errorf("round %d: asked for %q, want %q", round, got.asked, asked)
				}
				if r := got.origins[0]; !strings.HasPrefix(r, tc.reason) || !strings.HasSuffix(r, "; "+noTable) && r != tc.reason {
					t.Errorf("round %d: the reason is %q", round, r)
				}
			}
		})
	}
}

// A registry that does not answer is not waited for longer than for a manifest.
func TestSilentRegistry(t *testing.T) {
	t.Parallel()
	s := newPlainSample(t, nil)
	s.broken["referrers"] = errSilent
	ref, err := manifest.ParseReference(repo + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := manifest.Resolve(t.Context(), s.hub, ref, manifest.DefaultPlatform())
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	op := &opening{Options: Options{Registry: s.hub, Log: logrus.NewEntry(log)}, docs: &cachedFetcher{from: s.hub}}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := newSearch(t.Context(), op, &Image{Manifest: img}).ask(t.Context())
		if waited := time.Since(begin); waited != patience || len(f.notes) != 1 {
			t.Errorf("it took %v, %q", waited, f.notes)
		}
	})
}
