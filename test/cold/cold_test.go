//go:build linux

package cold

import (
	"os"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// BenchmarkCold is everything that COLD selects; b.N is of no meaning to it.
func BenchmarkCold(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Fatal("mounting, dropping caches and starting containers take root")
	}
	sel := selected()
	if words := sel.unknown(); len(words) > 0 {
		b.Fatalf("COLD names %q, which is nothing", words)
	}
	out := &results{Sizes: map[string]int64{}}
	for _, w := range workloads() {
		if sel.has(w.name, workloadNames()) {
			part(b, w.name, func(t testing.TB) { newBench(t, w, sel, out).all(t) })
		}
	}
}

// BenchmarkImages only builds the images, and says where they are.
func BenchmarkImages(b *testing.B) {
	for b.Loop() {
		for _, name := range testkit.Workloads() {
			b.Logf("%s %s", name, testkit.Workload(b, name))
		}
	}
}
