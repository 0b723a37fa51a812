//go:build linux

package cold

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// A line is a way to the registry.
type line struct {
	name string
	testkit.Link
}

// lines are as the issue has them.
func lines() []line {
	return []line{
		{"wan", testkit.Link{Delay: 40 * time.Millisecond, BytesPerSecond: 100e6 / 8}},
		{"lan", testkit.Link{Delay: time.Millisecond, BytesPerSecond: 1e9 / 8}},
	}
}

// A form is a way to keep an image, and to read it.
type form struct {
	name    string
	tag     testkit.Form // in the layout
	indexed bool         // by an index that peel pushes
	lazy    bool         // profiles are of use
}

func forms() []form {
	return []form{
		{"estargz", testkit.Stargz, false, true},
		{"zstdchunked", testkit.ZstdChunked, false, true},
		{"indexed", testkit.Gzip, true, true},
		{"plain", testkit.Gzip, false, false},
	}
}

// The ways to run a workload that are not a form, by the names that COLD and
// the results have.
const (
	local    = "local"    // overlayfs of the extracted layers, nothing in memory
	ctr      = "ctr"      // pulled by containerd
	podman   = "podman"   // pulled by podman
	whole    = "whole"    // the first form, read from end to end
	ctrWhole = "ctrwhole" // pulled by containerd, read from end to end
)

// A selection is what of all that is to be measured.
type selection struct{ words []string }

// selected reads COLD, words that each leave out what stands beside them:
// "python wan estargz". Empty means everything.
func selected() selection { return selection{strings.Fields(os.Getenv("COLD"))} }

// has reports whether name, which is one of all, is to be measured.
func (s selection) has(name string, all []string) bool {
	if !slices.ContainsFunc(s.words, func(w string) bool { return slices.Contains(all, w) }) {
		return true
	}
	return slices.Contains(s.words, name)
}

// unknown are the words that name nothing.
func (s selection) unknown() []string {
	all := slices.Concat(workloadNames(), lineNames(), ways())
	return slices.DeleteFunc(slices.Clone(s.words), func(w string) bool { return slices.Contains(all, w) })
}

func workloadNames() (names []string) {
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return names
}

func lineNames() (names []string) {
	for _, l := range lines() {
		names = append(names, l.name)
	}
	return names
}

func ways() (names []string) {
	for _, f := range forms() {
		names = append(names, f.name)
	}
	return append(names, ctr, podman, whole)
}

// part runs f as a part of t, so that what it started and mounted is gone
// before the next begins, and it alone fails.
func part(t testing.TB, name string, f func(t testing.TB)) {
	t.Helper()
	switch t := t.(type) {
	case *testing.T:
		t.Run(name, func(t *testing.T) { f(t) })
	case *testing.B:
		t.Run(name, func(b *testing.B) { f(b) })
	}
}
