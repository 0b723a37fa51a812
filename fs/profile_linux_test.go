package fs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/layer/ztoc"
	"github.com/peelfs/peel/manifest"
)

// ahead opens an image and returns what is to be fetched ahead, as layers and
// addresses, by what, and what was asked for after the opening.
func ahead(t *testing.T, h *hub, c Cache, pull Pull) (from string, spans []string, asked string) {
	t.Helper()
	log := quietLog()
	m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: c, Log: log, Pull: pull})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	h.log()
	a := m.foresee(t.Context(), &ProfileOptions{Cache: c, Registry: h, Pull: pull, Log: log})
	for _, w := range a.order {
		for i, l := range m.Layers() {
			if l == w.Layer {
				spans = append(spans, fmt.Sprintf("%d@%d", i, l.Index().Spans[w.Span].Addr))
			}
		}
	}
	return a.from, spans, h.log()
}

// stargzSample is an image of one eStargz layer with files of a span each.
func stargzSample(t *testing.T, edit func(*layerInfo)) (*hub, *layerInfo) {
	t.Helper()
	h := newHub()
	l := testkit.Encode(t, testkit.Stargz,
		testkit.File("a", testkit.Noise(1, 5000)), testkit.File("b", testkit.Noise(2, 5000)), testkit.File("c", testkit.Noise(3, 5000)))
	info := &layerInfo{layer: l, space: 15_000}
	d := h.put(repo, "layer", l.Desc.MediaType, l.Blob)
	d.Annotations = l.Desc.Annotations
	info.desc = h.image(t, repo, "v1", []digest.Digest{l.DiffID}, nil, d)
	if edit != nil {
		edit(info)
	}
	h.log()
	return h, info
}

type layerInfo struct {
	layer testkit.Layer
	space int64
	desc  ocispec.Descriptor
}

// profile is one of the sample, of files at the addresses.
func (i *layerInfo) profile(addrs ...int64) *manifest.Profile {
	p := &manifest.Profile{
		Image: i.desc.Digest, Runs: 1, Updated: time.Unix(100, 0).UTC(),
		Layers: []manifest.ProfileLayer{{Digest: i.layer.Desc.Digest, Space: i.space}},
	}
	for n, a := range addrs {
		p.Touches = append(p.Touches, manifest.ProfileTouch{Addr: a, Len: 5000, At: int64(n), Weight: manifest.MaxProfileWeight})
	}
	return p
}

// share attaches a profile to the sample.
func (i *layerInfo) share(t *testing.T, h *hub, p *manifest.Profile, annotated string) {
	t.Helper()
	packed, err := p.Pack()
	if err != nil {
		t.Fatal(err)
	}
	i.shareRaw(t, h, p, packed, annotated)
}

func (i *layerInfo) shareRaw(t *testing.T, h *hub, p *manifest.Profile, packed []byte, annotated string) {
	t.Helper()
	s := manifest.SharedProfile{Subject: &i.desc, Entrypoint: p.Entrypoint, Updated: p.Updated, Blob: h.put(repo, "profile", manifest.ProfileType, packed)}
	raw, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if annotated == "" {
		m.Annotations = nil
	}
	h.attach(repo, i.desc, h.put(repo, "artifact", m.MediaType, raw), manifest.ProfileArtifactType, m.Annotations)
}

const annotated = "annotated"

func TestForesee(t *testing.T) {
	t.Parallel()
	const attached = "the profile attached to the image"
	for _, tc := range []struct {
		name    string
		pull    Pull
		prepare func(t *testing.T, h *hub, i *layerInfo, c Cache)
		from    string
		spans   []string
		asked   string
	}{
		{"nothing", PullMissing, func(*testing.T, *hub, *layerInfo, Cache) {}, "", nil, "referrers"},
		{"a profile attached", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			i.share(t, h, i.profile(5000, 0), annotated)
		}, attached, []string{"0@5000", "0@0"}, "profile referrers"},
		{"in a registry that drops annotations", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			i.share(t, h, i.profile(5000, 0), "")
		}, attached, []string{"0@5000", "0@0"}, "artifact profile referrers"},
		{"the latest of several", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			for n, addr := range []int64{0, 10_000, 5000} {
				p := i.profile(addr)
				p.Updated = time.Unix(int64(100+n%2), 0)
				i.share(t, h, p, annotated)
			}
		}, attached, []string{"0@10000"}, "profile referrers"},
		{"of another entrypoint", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			p := i.profile(0)
			p.Entrypoint = "x"
			i.share(t, h, p, annotated)
		}, "", nil, "referrers"},
		{"nobody may be asked", PullNever, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			i.share(t, h, i.profile(0), annotated)
		}, "", nil, ""},
		{"runs of this machine come first", PullMissing, func(t *testing.T, h *hub, i *layerInfo, c Cache) {
			i.share(t, h, i.profile(0), annotated)
			own := i.profile(10_000, 5000, 0)
			own.Touches[1].Weight = replayWeight - 1
			err := changeProfile(t.Context(), c, ProfileName{Image: i.desc.Digest}, quietLog(), func(d *profileDoc) { d.put("own", own, time.Now()) })
			if err != nil {
				t.Fatal(err)
			}
		}, "the profile of earlier runs", []string{"0@10000", "0@0"}, ""},
		{"of the layer indexed otherwise", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			p := i.profile(0)
			p.Layers[0].Space++
			i.share(t, h, p, annotated)
		}, attached, nil, "profile referrers"},
		{"cut otherwise", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			p := i.profile(4000)
			i.share(t, h, p, annotated)
		}, attached, []string{"0@0", "0@5000"}, "profile referrers"},
		{"of another image", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			p := i.profile(0)
			p.Image = digest.FromString("other")
			i.share(t, h, p, annotated)
		}, "", nil, "profile referrers"},
		{"of a layer that the image has not", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			p := i.profile(0)
			p.Layers[0].Digest = digest.FromString("other")
			i.share(t, h, p, annotated)
		}, "", nil, "profile referrers"},
		{"malformed", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			i.shareRaw(t, h, i.profile(0), []byte("nonsense"), annotated)
		}, "", nil, "profile referrers"},
		{"not what its digest says", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			p := i.profile(0)
			i.share(t, h, p, annotated)
			packed, err := p.Pack()
			if err != nil {
				t.Fatal(err)
			}
			h.docs[repo+"@"+digest.FromBytes(packed).String()] = bytes.Repeat([]byte("x"), len(packed))
		}, "", nil, "profile referrers"},
		{"of which the registry has only the manifest", PullMissing, func(t *testing.T, h *hub, i *layerInfo, _ Cache) {
			i.share(t, h, i.profile(0), annotated)
			h.broken["profile"] = errdefs.ErrNotFound
		}, "", nil, "profile referrers"},
		{"a registry that fails", PullMissing, func(_ *testing.T, h *hub, _ *layerInfo, _ Cache) {
			h.broken["referrers"] = errdefs.ErrUnavailable
		}, "", nil, "referrers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h, i := stargzSample(t, nil)
			c := newFolder(t)
			if tc.pull == PullNever {
				ahead(t, h, c, PullMissing) // so that it can be opened
			}
			tc.prepare(t, h, i, c)
			from, spans, asked := ahead(t, h, c, tc.pull)
			if from != tc.from || asked != tc.asked {
				t.Errorf("by %q, asked for %q; want %q, %q", from, asked, tc.from, tc.asked)
			}
			if d := cmp.Diff(tc.spans, spans); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAskedOnce: what is attached to an image, or that nothing is, is known for a
// day; a profile that was pulled is used at once, while a later one is looked
// for.
func TestAskedOnce(t *testing.T) {
	t.Parallel()
	h, i := stargzSample(t, nil)
	c := newFolder(t)
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []struct {
			name, from, asked string
			do                func()
		}{
			{"first", "", "referrers", func() {}},
			{"known that there is none", "", "", func() { i.share(t, h, i.profile(0), annotated) }},
			{"a day later", "the profile attached to the image", "profile referrers", func() { time.Sleep(attachedFor + time.Second) }}, //nolint:forbidigo // synctest's
			{"pulled", "the profile that was attached to the image", "", func() { time.Sleep(attachedFor + time.Second) }},              //nolint:forbidigo // synctest's
		} {
			step.do()
			if from, _, asked := ahead(t, h, c, PullMissing); from != step.from || asked != step.asked {
				t.Errorf("%s: by %q, asked for %q", step.name, from, asked)
			}
		}
		log := quietLog()
		k := ReadProfile(c, ProfileName{Image: i.desc.Digest}, log)
		later := i.profile(5000)
		later.Updated = time.Unix(200, 0).UTC()
		i.share(t, h, later, annotated)
		m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: c, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		p, err := SharedProfile(t.Context(), m.Manifest, &ProfileOptions{Cache: c, Registry: h, Log: log}, k)
		if err != nil || !p.Equal(later) || !ReadProfile(c, ProfileName{Image: i.desc.Digest}, log).Profile.Equal(later) {
			t.Errorf("%+v, %v", p, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestPullProfile(t *testing.T) {
	t.Parallel()
	h, i := stargzSample(t, nil)
	c, log := newFolder(t), quietLog()
	m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: c, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	o := &ProfileOptions{Cache: c, Registry: h, Log: log}
	if _, _, err := PullProfile(t.Context(), m.Manifest, o); !errdefs.IsNotFound(err) {
		t.Errorf("there is none: %v", err)
	}
	i.share(t, h, i.profile(0), annotated)
	if p, adopted, err := PullProfile(t.Context(), m.Manifest, o); err != nil || !adopted || len(p.Touches) != 1 {
		t.Errorf("%+v, %t, %v", p, adopted, err)
	}
	i.shareRaw(t, h, &manifest.Profile{Image: i.desc.Digest, Updated: time.Unix(300, 0)}, []byte("x"), annotated)
	if _, _, err := PullProfile(t.Context(), m.Manifest, o); !errors.Is(err, manifest.ErrMalformed) {
		t.Errorf("%v", err)
	}
}

// TestSearchTellsOfProfiles: who looks for indexes has seen the profiles too.
func TestSearchTellsOfProfiles(t *testing.T) {
	t.Parallel()
	s := newPlainSample(t, nil)
	d, annotations := s.peel(t, repo, &s.desc, 0, 1)
	s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
	i := &layerInfo{layer: s.layers[1], desc: s.desc}
	x, err := layer.Unpack(s.packed[1], s.layers[1].Desc, layer.Claim{Digest: digest.FromString("x")})
	if err != nil {
		t.Fatal(err)
	}
	i.space = x.Info.AddrSize
	p := i.profile(0)
	p.Touches[0].Len = i.space
	i.share(t, s.hub, p, annotated)
	from, spans, asked := ahead(t, s.hub, newFolder(t), PullMissing)
	if from != "the profile attached to the image" || len(spans) != len(x.Spans) || asked != "profile" {
		t.Errorf("by %q: %v; asked for %q", from, spans, asked)
	}
}

// TestLandmarks: what an eStargz layer has before its landmark is fetched ahead,
// unless a profile says otherwise; nothing if the landmark says so.
func TestLandmarks(t *testing.T) {
	t.Parallel()
	archive := testkit.Encode(t, testkit.PlainTar,
		testkit.File("a", testkit.Noise(1, 5000)), testkit.File("b", testkit.Noise(2, 5000)), testkit.File("c", testkit.Noise(3, 5000)))
	for _, tc := range []struct {
		name   string
		wanted []string
		spans  int
	}{
		{"none", nil, 0},
		{"two files", []string{"c", "a"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive.Blob), 0, int64(len(archive.Blob))), estargz.WithPrioritizedFiles(tc.wanted))
			if err != nil {
				t.Fatal(err)
			}
			blob, err := io.ReadAll(b)
			if err := errors.Join(err, b.Close()); err != nil {
				t.Fatal(err)
			}
			h := newHub()
			d := h.put(repo, "layer", ocispec.MediaTypeImageLayerGzip, blob)
			d.Annotations = map[string]string{estargz.TOCJSONDigestAnnotation: b.TOCDigest().String()}
			i := &layerInfo{space: 15_000, layer: testkit.Layer{Desc: d}}
			i.desc = h.image(t, repo, "v1", []digest.Digest{b.DiffID()}, nil, d)
			c := newFolder(t)
			from, spans, _ := ahead(t, h, c, PullMissing)
			if len(spans) < tc.spans || tc.spans == 0 && len(spans) > 0 || (from == "eStargz's landmarks") != (tc.spans > 0) {
				t.Errorf("by %q: %v", from, spans)
			}
		})
	}
}

// TestSOCILists: the lists of the index that a layer is read by say what to
// fetch, unless they are nonsense.
func TestSOCILists(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, list string
		spans      int
	}{
		{"good", `{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":7}]}`, 1},
		{"beyond the layer", `{"version":"1.0","prefetch_spans":[{"start_span":5,"end_span":7}]}`, 0},
		{"nonsense", `nonsense`, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newPlainSample(t, nil)
			x := ztoc.Index{
				Layers:   []ztoc.Layer{{Digest: s.layers[0].Desc.Digest, TOC: s.put(repo, "ztoc-a", ztoc.MediaTypeTOC, s.ztocs[0])}},
				Prefetch: []ztoc.Prefetch{{Digest: s.layers[0].Desc.Digest, List: s.put(repo, "list", ztoc.MediaTypePrefetch, []byte(tc.list))}},
			}
			raw, _, err := x.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var m ocispec.Manifest
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			m.Config.MediaType, m.Subject = manifest.SOCIIndexV1, &s.desc
			s.attach(repo, s.desc, s.put(repo, "soci", m.MediaType, encoded(t, m)), manifest.SOCIIndexV1, nil)
			c := newFolder(t)
			for _, again := range []string{"list", "list"} { // nothing is read by an index that is found anew
				from, spans, asked := ahead(t, s.hub, c, PullMissing)
				if len(spans) != tc.spans || asked != again || (from != "") != (tc.spans > 0) {
					t.Errorf("by %q: %v; asked for %q", from, spans, asked)
				}
			}
		})
	}
}
