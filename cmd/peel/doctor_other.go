//go:build !linux

package main

import "github.com/peelfs/peel/fs"

func (o *doctorOptions) machine() []finding {
	return []finding{fine("FUSE", "mounts need Linux").warn("peel ls, cat, tree, stat and inspect work here")}
}

func (o *doctorOptions) disk(string) []finding { return nil }

// canMount says why this process cannot mount.
func canMount() error { return fs.ErrNoFUSE }
