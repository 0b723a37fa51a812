package fs

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// TestSearchWhileOpening: who opens an image with a search for its profile has
// it afterwards, for one request that those for indexes share, and never fails
// or waits because of it.
func TestSearchWhileOpening(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		break_  func(h *hub)
		asked   string
		from    string
		origins string
	}{
		{"found", func(*hub) {}, "config index-a index-b manifest profile referrers", "the profile that was attached to the image", "peel"},
		{"the profile fails", func(h *hub) { h.broken["profile"] = errdefs.ErrUnavailable }, "config index-a index-b manifest profile profile referrers", "", "peel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newPlainSample(t, nil)
			d, annotations := s.peel(t, repo, &s.desc, 0, 1)
			s.attach(repo, s.desc, d, manifest.IndexArtifactType, annotations)
			x, err := layer.Unpack(s.packed[1], s.layers[1].Desc, layer.Claim{Digest: digest.FromString("x")})
			if err != nil {
				t.Fatal(err)
			}
			i := &layerInfo{layer: s.layers[1], desc: s.desc, space: x.Info.AddrSize}
			p := i.profile(0)
			p.Touches[0].Len = i.space
			i.share(t, s.hub, p, annotated)
			tc.break_(s.hub)
			c, log, search := newFolder(t), quietLog(), &ProfileSearch{}
			m, err := Open(t.Context(), repo+":v1", Options{Registry: s.hub, Cache: c, Log: log, Profile: search})
			if err != nil {
				t.Fatal(err)
			}
			o := &ProfileOptions{Cache: c, Registry: s.hub, Log: log, Search: search}
			o.Search.wait(t.Context())
			a := m.foresee(t.Context(), o)
			if asked := s.log(); a.from != tc.from || asked != tc.asked || !strings.HasPrefix(m.Layers()[0].Index().Origin(), tc.origins) {
				t.Errorf("by %q, asked for %q", a.from, asked)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCloseEndsSearch: a registry that never answers keeps no image open.
func TestCloseEndsSearch(t *testing.T) {
	t.Parallel()
	h, _ := stargzSample(t, nil)
	h.broken["referrers"] = errSilent
	m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: newFolder(t), Log: quietLog(), Profile: &ProfileSearch{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestReferrersOfAnother: a search that finds that another process has asked
// keeps nobody waiting for what it would have been told.
func TestReferrersOfAnother(t *testing.T) {
	t.Parallel()
	s := &ProfileSearch{done: make(chan struct{}), listed: make(chan struct{})}
	close(s.done)
	if list, asked, err := s.referrers(t.Context()); list != nil || asked || err != nil {
		t.Errorf("%v, %t, %v", list, asked, err)
	}
}
