package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer"
)

// search looks for indexes that others have made of an image's layers: once
// for all layers, and only if one needs it. Nothing that goes wrong here keeps
// an image from being opened; layers are streamed then.
type search struct {
	op       *opening
	m        *Image
	recalled func() claims  // of the cache
	found    func() finding // by asking registries
}

// finding is what registries know.
type finding struct {
	claims claims
	notes  []string // what went wrong
}

// newSearch returns a search that ends with ctx.
func newSearch(ctx context.Context, op *opening, m *Image) *search {
	s := &search{op: op, m: m}
	if op.Profile != nil {
		op.Profile.begin(ctx, op, m)
	}
	s.recalled = sync.OnceValue(func() claims { return op.recall(m) })
	s.found = sync.OnceValue(func() finding {
		f := s.ask(ctx)
		if len(f.claims) > 0 {
			op.remember(m, f.claims)
		}
		return f
	})
	return s
}

// index returns the index of layer i that somebody has made, or nil and why
// there is none. An error is one of the cache.
func (s *search) index(ctx context.Context, i int) (x *layer.Index, why string, err error) {
	d := s.m.Manifest.Layers[i]
	c, known := s.recalled()[d.Digest]
	if known {
		if x, err := s.op.cachedIndex(s.m, i, c.slot(d)); err == nil {
			return x, "", nil
		}
	}
	if s.op.Require >= layer.Proved {
		return nil, "only a proved index is to be used", nil
	}
	if !known {
		if s.op.Pull == PullNever && !s.op.place {
			return nil, "", nil
		}
		f := s.found()
		if c, known = f.claims[d.Digest]; !known {
			return nil, f.without(), nil
		}
	}
	return s.fetch(ctx, i, c)
}

// fetch gets the index of layer i that c is, unless another image or process
// has done so.
func (s *search) fetch(ctx context.Context, i int, c claim) (x *layer.Index, why string, err error) {
	d := s.m.Manifest.Layers[i]
	unlock, err := s.op.Cache.Lock(ctx, c.slot(d).key)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if x, err := s.op.cachedIndex(s.m, i, c.slot(d)); err == nil {
		return x, "", nil
	} else if !errors.Is(err, iofs.ErrNotExist) {
		s.op.anew(d, err)
	}
	s.op.ask(i)
	x, err = s.op.fetchIndex(ctx, d, &c)
	defer s.op.unpacking.Unlock()
	if err != nil {
		return nil, s.unused(ctx, d.Digest, c, err), nil
	}
	x, err = s.op.keepIndex(s.m, i, c.slot(d), x)
	return x, "", err
}

// unused tells that the index of a layer cannot be used.
func (s *search) unused(ctx context.Context, of digest.Digest, c claim, err error) string {
	if ctx.Err() == nil {
		s.op.Log.WithError(err).WithField("layer", of).WithField("index", c.Index.Digest).
			Warn("the index cannot be used; the layer is read whole")
	}
	return fmt.Sprintf("index %s (%s%s%v", c.Index.Digest, c.Origin, notUsed, err)
}

// notUsed is in the reason of a layer that is read whole although somebody
// hands out an index of it.
const notUsed = ") not used: "

// Unusable reports whether a layer.Index's Reason is that an index which
// somebody hands out cannot be used.
func Unusable(reason string) bool { return strings.Contains(reason, notUsed) }

// without is why a layer has no index.
func (f *finding) without() string {
	notes := f.notes
	for _, c := range f.claims {
		notes = append([]string{"no index of this layer in the " + c.Origin}, notes...)
		break
	}
	return strings.Join(notes, "; ")
}
