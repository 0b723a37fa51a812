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
			for _, p := range []policy{policyNone, policyCourse, policyFull, policyReplay} {
				r := simulate(all[name], l.link, p)
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%d\t%.1f\t%.2f\t%d\t%d\t\n", name, l.name, p,
					r.took.Seconds(), r.limit.Seconds(), r.ratio(), r.requests, float64(r.bytes)/1e6, r.waste(), r.guesses, r.struck)
			}
		}
	}
	_ = w.Flush()
	t.Log("\n" + table.String())
}
