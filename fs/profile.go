package fs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// ProfileOptions say which profile of an image is meant, and where it may be.
// Cache, Registry and Log are required.
type ProfileOptions struct {
	Cache      Cache
	Registry   Registry
	Pull       Pull // PullNever: no registry is asked for a profile
	Entrypoint string
	Traffic    *layer.Traffic // of the image's layers; nil: one of its own
	Log        *logrus.Entry
	Search     *ProfileSearch // Options.Profile of the image; nil if there was none

	seen func([]ocispec.Descriptor, error) // is told what is attached to the image, if that is asked for
}

// anticipation is what is to be fetched before it is read, and who says so.
type anticipation struct {
	from  string
	order []layer.Wanted
	stale *KeptProfile // of which the registry may have a later one; nil: it cannot
}

// Anticipate fetches ahead what a workload is known to read, in the order in
// which it does: by the profile of earlier runs on this machine, or else by one
// that is attached to the image, or by the lists that the image's builder made.
// It returns when all of that is there, or ctx is done. What goes wrong is
// logged, and leaves more to be fetched when it is read.
func (m *Image) Anticipate(ctx context.Context, o *ProfileOptions) {
	if m.Manifest.Reference.Transport() != "" {
		return // it is read where it lies
	}
	o.Search.wait(ctx)
	a := m.foresee(ctx, o)
	log := o.Log.WithField("image", m.Manifest.Desc.Digest)
	if len(a.order) > 0 {
		log.WithField("spans", len(a.order)).WithField("by", a.from).Debug("fetching ahead")
		traffic := o.Traffic
		if traffic == nil {
			traffic = layer.NewTraffic(layer.TrafficOptions{})
		}
		if err := layer.Prefetch(ctx, traffic, a.order); err != nil && ctx.Err() == nil {
			log.WithError(err).WithField("by", a.from).Warn("not all was fetched ahead")
		}
	}
	if a.stale != nil {
		m.attachedProfile(ctx, o, a.stale) // for the next mount
	}
}

// foresee finds out what is to be fetched ahead.
func (m *Image) foresee(ctx context.Context, o *ProfileOptions) anticipation {
	k := ReadProfile(o.Cache, ProfileName{m.Manifest.Desc.Digest, o.Entrypoint}, o.Log)
	switch {
	case k.Own > 0:
		return anticipation{from: "the profile of earlier runs", order: m.replay(k.Profile)}
	case k.Profile != nil:
		return anticipation{from: "the profile that was attached to the image", order: m.replay(k.Profile), stale: k}
	}
	if p := m.attachedProfile(ctx, o, k); p != nil {
		return anticipation{from: "the profile attached to the image", order: m.replay(p)}
	}
	for _, hint := range []struct {
		from string
		find func(context.Context, *ProfileOptions) []layer.Wanted
	}{
		{"SOCI's prefetch lists", m.listed},
		{"eStargz's landmarks", m.landmarks},
	} {
		if order := hint.find(ctx, o); len(order) > 0 {
			return anticipation{from: hint.from, order: order}
		}
	}
	return anticipation{}
}

// profileFits refuses a profile that is of another image or workload.
func profileFits(m *manifest.Image, p *manifest.Profile, entrypoint string) error {
	if p.Image != m.Desc.Digest || p.Entrypoint != entrypoint {
		return fmt.Errorf("%w: a profile of image %s, entrypoint %q", manifest.ErrMalformed, p.Image, p.Entrypoint)
	}
	for _, l := range p.Layers {
		if !slices.ContainsFunc(m.Layers, func(d ocispec.Descriptor) bool { return d.Digest == l.Digest }) {
			return fmt.Errorf("%w: a profile of layer %s, which the image has not", manifest.ErrMalformed, l.Digest)
		}
	}
	return nil
}

// replay is what a profile asks for, as spans of the layers as they are indexed
// here.
func (m *Image) replay(p *manifest.Profile) []layer.Wanted {
	readers := make([]*layer.Layer, len(p.Layers)) // nil: not in the image, or indexed in another way
	for row, l := range p.Layers {
		if r := m.reader(l.Digest); r != nil && r.Index().Info.AddrSize == l.Space {
			readers[row] = r
		}
	}
	w := wanting{left: profileMost}
	for _, t := range p.Touches {
		if r := readers[t.Layer]; r != nil && t.Weight >= replayWeight {
			w.addresses(r, t.Addr, t.Len)
		}
	}
	return w.order
}

// reader is that of a layer; nil if the image has none such.
func (m *Image) reader(d digest.Digest) *layer.Layer {
	for i := range m.layers {
		if m.Manifest.Layers[i].Digest == d {
			return m.layers[i]
		}
	}
	return nil
}

// landmarks are what eStargz's builder was told to be read first: of each layer
// that has a landmark, what comes before it.
func (m *Image) landmarks(context.Context, *ProfileOptions) []layer.Wanted {
	w := wanting{left: profileMost}
	for i, l := range m.layers {
		if m.reader(m.Manifest.Layers[i].Digest) != l {
			continue // the layer comes twice
		}
		x := l.Index()
		first := []int{}
		for s := range x.Spans {
			if x.Spans[s].Off < x.Info.Landmark {
				first = append(first, s)
			}
		}
		slices.SortFunc(first, func(a, b int) int { return cmp.Compare(x.Spans[a].Off, x.Spans[b].Off) })
		for _, s := range first {
			w.span(l, s)
		}
	}
	return w.order
}

// wanting collects spans, each once, until they are too many.
type wanting struct {
	left  int64 // compressed bytes
	order []layer.Wanted
	seen  map[layer.Wanted]bool
}

func (w *wanting) span(l *layer.Layer, span int) {
	one := layer.Wanted{Layer: l, Span: span}
	if w.seen[one] || w.left <= 0 {
		return
	}
	if w.seen == nil {
		w.seen = map[layer.Wanted]bool{}
	}
	w.seen[one] = true
	w.left -= l.Index().Spans[span].CLen
	w.order = append(w.order, one)
}

// addresses takes in the spans that have any of the addresses [addr, addr+n).
func (w *wanting) addresses(l *layer.Layer, addr, n int64) {
	spans := l.Index().Spans
	first := sort.Search(len(spans), func(i int) bool { return spans[i].Addr+spans[i].Len > addr })
	for i := first; i < len(spans) && spans[i].Addr < addr+n; i++ {
		w.span(l, i)
	}
}
