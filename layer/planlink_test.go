package layer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/internal/priority"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		link  Link
		class priority.Class
		want  planLimits
	}{
		{"unknown", Link{}, priority.Demand, planLimits{gap: 62_500, run: 4 << 20, requests: 4, waste: 8, split: 1 << 20}},
		{"far", Link{40 * time.Millisecond, 12_500_000}, priority.Demand, planLimits{gap: 62_500, run: 4 << 20, requests: 4, waste: 8, split: 1 << 20}},
		{"near", Link{time.Millisecond, 125_000_000}, priority.Demand, planLimits{gap: 16 << 10, run: 4 << 20, requests: 4, waste: 8, split: 1 << 20}},
		{"far and wide", Link{100 * time.Millisecond, 125_000_000}, priority.Demand, planLimits{gap: 1 << 20, run: 16 << 20, requests: 4, waste: 8, split: 25_000_000}},
		{"expected", Link{}, priority.Prefetch, planLimits{gap: 62_500, run: 4 << 20, requests: 2, waste: 8}},
		{"not expected", Link{}, priority.Fill, planLimits{gap: fillGap, run: fillRun, requests: 1, waste: 8}},
		{"nonsense", Link{-1, -1}, priority.Prefetch, planLimits{gap: 62_500, run: 4 << 20, requests: 2, waste: 8}},
		{"more nonsense", Link{1 << 62, 1 << 62}, priority.Prefetch, planLimits{gap: 1 << 20, run: 16 << 20, requests: 2, waste: 8}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, tc.link.limits(tc.class), cmp.AllowUnexported(planLimits{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
