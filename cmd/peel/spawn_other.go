//go:build !linux

package main

import (
	"context"

	"github.com/peelfs/peel/fs"
)

func (o *mountOptions) background(context.Context, job) (mounted, error) {
	return mounted{}, fs.ErrNoFUSE
}

func (o *mountOptions) serveLeashed(context.Context, string, string) error { return fs.ErrNoFUSE }

func (j *job) claim() (release func(), err error) { return nil, fs.ErrNoFUSE }
