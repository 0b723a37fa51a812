package main

import (
	"context"
	"errors"

	"github.com/peelfs/peel/manifest"
)

// target is a path of an image on the command line.
type target struct {
	image string
	path  string // absolute
}

// parseTarget takes an image without a path for its root directory.
func parseTarget(arg string) target {
	image, path, ok := manifest.SplitPath(arg)
	if !ok {
		path = "/"
	}
	return target{image, path}
}

// eachImage calls use for each path, in order, with every image opened once
// for the paths that follow each other. All arguments are checked first.
func (a *app) eachImage(ctx context.Context, f *imageFlags, args []string, use func(*session, target) error) error {
	type group struct {
		request
		targets []target
	}
	var groups []*group
	for _, arg := range args {
		if _, _, ok := manifest.SplitPath(arg); !ok {
			if _, err := manifest.ParseReference(arg); err != nil {
				return err
			}
			return withRemedy(usagef("%q names no file", arg), "write it as IMAGE:/PATH, for example alpine:/etc/os-release")
		}
		t := parseTarget(arg)
		r, err := f.request(t.image)
		if err != nil {
			return err
		}
		if last := len(groups) - 1; last >= 0 && groups[last].ref.String() == r.ref.String() {
			groups[last].targets = append(groups[last].targets, t)
			continue
		}
		groups = append(groups, &group{r, []target{t}})
	}
	var errs []error
	for _, g := range groups {
		err := a.browse(ctx, g.request, func(s *session) error {
			var errs []error
			for _, t := range g.targets {
				errs = append(errs, use(s, t))
			}
			return errors.Join(errs...)
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
