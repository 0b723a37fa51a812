package main

import (
	"context"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
)

// openImage opens the image that r names. With --early it returns as soon as
// the image can be shown, and its layers are still being streamed then.
func (s *session) openImage(ctx context.Context, r request, o fs.Options) (err error) {
	if !r.early {
		s.image, err = fs.Open(ctx, r.ref.String(), o)
		return err
	}
	s.image, s.early, err = fs.OpenEarly(ctx, r.ref.String(), o)
	if s.early != nil {
		s.image = s.early.Known()
	}
	return err
}

func (s *session) mount(ctx context.Context, dir string, o fs.MountOptions) (*fs.Server, error) {
	if s.early != nil {
		return fs.MountEarly(ctx, s.early, dir, o)
	}
	return fs.Mount(ctx, s.image, dir, o)
}

// stays says that the mount stands, whatever becomes of who asked for it.
func (s *session) stays() {
	if s.early != nil {
		s.early.Keep()
	}
}

// layers returns the layers that can be read by now.
func (s *session) layers() []*layer.Layer {
	if s.early != nil {
		return s.early.Layers()
	}
	return s.image.Layers()
}
