//go:build linux

package cold

import (
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// BenchmarkImages only builds the images, and says where they are.
func BenchmarkImages(b *testing.B) {
	for b.Loop() {
		for _, name := range testkit.Workloads() {
			b.Logf("%s %s", name, testkit.Workload(b, name))
		}
	}
}
