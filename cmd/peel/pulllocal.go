package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
)

// listLocal lists the images of a place on this machine.
func (a *app) listLocal(ctx context.Context, ref manifest.Reference) ([]local.Entry, error) {
	c, err := a.openCache()
	if err != nil {
		return nil, err
	}
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return nil, err
	}
	return local.List(ctx, ref, local.Options{Tmp: filepath.Join(c.Dir(), "tmp"), Log: log})
}

// wantLocal adds the image of a place on this machine that r names, or all that
// are there.
func (b *pullBatch) wantLocal(ctx context.Context, r request) error {
	if b.allTags {
		return usagef("--all-tags %s: a place is pulled whole unless an image of it is named", r.ref)
	}
	entries, err := b.listLocal(ctx, r.ref)
	if err != nil {
		return err
	}
	if r.ref.Within() != "" {
		b.images = append(b.images, wanted{r, entries})
		return nil
	}
	for i := range entries {
		one := r
		if len(entries[i].Names) > 0 {
			if one.ref, err = manifest.ParseReference(r.ref.String() + ":" + entries[i].Names[0]); err != nil {
				return err
			}
		}
		b.images = append(b.images, wanted{one, entries})
	}
	return nil
}

// ownNames are the names by which the cache is to know the image of digest d
// that ref names in a place on this machine: those it has there, or else ref. A
// tag alone, as OCI layouts have it, is no name.
func ownNames(ref manifest.Reference, entries []local.Entry, d digest.Digest) []string {
	docker := ref.Transport() == manifest.TransportDockerArchive || ref.Transport() == manifest.TransportDockerDir
	var out []string
	for _, e := range entries {
		if e.Desc.Digest != d {
			continue
		}
		for _, name := range e.Names {
			if !docker && !strings.ContainsAny(name, "/:") {
				continue
			}
			if r, err := manifest.ParseReference(name); err == nil && r.Transport() == "" {
				out = append(out, r.String())
			}
		}
	}
	if len(out) == 0 {
		out = []string{ref.String()}
	}
	return out
}
