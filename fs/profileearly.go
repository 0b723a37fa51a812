package fs

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ProfileSearch looks for the profile that is attached to an image while that
// is opened, from when its manifest is known, so that it is there when the first
// file is read. It is for one image.
type ProfileSearch struct {
	Entrypoint string

	done   chan struct{} // closed when there is nothing to wait for; nil: it never began
	listed chan struct{} // closed when what follows is set; nil: nobody asks
	list   []ocispec.Descriptor
	err    error
}

// begin asks, if the cache has nothing to go by and does not know that there is
// nothing. The image's Close ends it.
func (s *ProfileSearch) begin(ctx context.Context, op *opening, m *Image) {
	o := &ProfileOptions{Cache: op.Cache, Registry: op.Registry, Pull: op.Pull, Entrypoint: s.Entrypoint, Log: op.Log}
	kept := ReadProfile(op.Cache, ProfileName{m.Manifest.Desc.Digest, s.Entrypoint}, op.Log)
	if op.place || op.Pull == PullNever || kept.Profile != nil {
		return
	}
	s.done = make(chan struct{})
	if attachmentsOf(op.Cache, m.Manifest, op.Log).read().stale() {
		s.listed = make(chan struct{})
		o.seen = func(list []ocispec.Descriptor, err error) {
			s.list, s.err = list, err
			close(s.listed)
		}
	}
	// The opening does not wait for it, nor does it end with the opening.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.closers = append(m.closers, func() error {
		cancel()
		<-s.done
		return nil
	})
	go func() { // ends with the search, or when the image is closed
		defer close(s.done)
		m.attachedProfile(ctx, o, kept)
	}()
}

// referrers are what the search has seen attached to the image. It is false if
// the search has ended without asking, as another process had just done so.
func (s *ProfileSearch) referrers(ctx context.Context) (list []ocispec.Descriptor, asked bool, err error) {
	select {
	case <-s.listed:
		return s.list, true, s.err
	case <-ctx.Done():
		return nil, true, context.Cause(ctx)
	case <-s.done:
	}
	select {
	case <-s.listed: // before it ended
		return s.list, true, s.err
	default:
		return nil, false, nil
	}
}

// wait returns when the search has ended: what it found is in the cache.
func (s *ProfileSearch) wait(ctx context.Context) {
	if s == nil || s.done == nil {
		return
	}
	select {
	case <-s.done:
	case <-ctx.Done():
	}
}
