package layer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	wan = Link{RoundTrip: 40 * time.Millisecond, Bandwidth: 12_500_000}
	lan = Link{RoundTrip: time.Millisecond, Bandwidth: 125_000_000}
)

// reached is what must not get worse of traces with nothing known, on the long
// line: the share of the limit, and of the bytes that were touched.
func reached() map[string][2]float64 {
	return map[string][2]float64{
		"files":                                {1.25, 1.30},
		"git":                                  {2.05, 1.22},
		"go":                                   {2.30, 1.20},
		"nginx":                                {1.75, 1.17},
		"python":                               {2.70, 1.20},
		"ruby":                                 {3.05, 1.30},
		"synthetic every other MiB, backwards": {1.15, 1.15},
		"synthetic find and cat":               {1.30, 1.75},
		"synthetic imports":                    {4.00, 1.30},
		"synthetic random":                     {8.40, 1.35},
		"synthetic sequence of 1 GB":           {1.05, 1.02},
	}
}

// With the order known, all but the random one. Long ranges that are wanted one by
// one, last ones first, share the line with those that are wanted later.
const replayRatio, replayBytes, replayBackwards = 1.02, 1.12, 1.20

// TestSimulate prints what policies make of traces, and holds the numbers that
// must not get worse.
func TestSimulate(t *testing.T) {
	t.Parallel()
	all := recorded(t)
	all["synthetic imports"] = pythonLike()
	all["synthetic find and cat"] = findAndCat()
	all["synthetic sequence of 1 GB"] = oneLargeFile()
	all["synthetic every other MiB, backwards"] = everyOther()
	all["synthetic random"] = atRandom()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "trace\tlink\tpolicy\ttime\tL\tratio\trequests\tMB\tbytes/touched\tguessed\thit\t")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, l := range []struct {
			name string
			link Link
		}{{"WAN", wan}, {"LAN", lan}} {
			for _, p := range []policy{policyNone, policyCourse, policyNeighbours, policyFull, policyReplay} {
				r := simulate(all[name], l.link, p)
				if l.link == wan {
					checkSimulated(t, name, p, r)
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%d\t%.1f\t%.2f\t%d\t%d\t\n", name, l.name, p,
					r.took.Seconds(), r.limit.Seconds(), r.ratio(), r.requests, float64(r.bytes)/1e6, r.waste(), r.guesses, r.struck)
			}
		}
	}
	_ = w.Flush()
	t.Log("\n" + table.String())
}

func checkSimulated(t *testing.T, name string, p policy, r simResult) {
	t.Helper()
	ratio, bytes := replayRatio, replayBytes
	switch {
	case p == policyFull:
		if to, ok := reached()[name]; ok {
			ratio, bytes = to[0], to[1]
		}
	case p != policyReplay || name == "synthetic random":
		return
	case name == "synthetic every other MiB, backwards":
		ratio = replayBackwards
	}
	if r.ratio() > ratio || r.waste() > bytes {
		t.Errorf("%s, %s: %.2f of the limit, %.2f of the bytes; were %.2f and %.2f", name, p, r.ratio(), r.waste(), ratio, bytes)
	}
}
