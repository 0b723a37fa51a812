package main

import (
	"context"

	"github.com/peelfs/peel/fs"
)

// beginProfile starts what the profile of an image is for at a mount: the
// spans of earlier runs are fetched ahead, and what this one reads is recorded.
// stop ends both and keeps the record.
func (o *mountOptions) beginProfile(_ context.Context, _ *session, _ *fs.Image) (stop func() error) {
	return func() error { return nil }
}
