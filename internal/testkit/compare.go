//go:build linux

package testkit

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A Clock says how exact the times of a form are.
type Clock int

// The clocks.
const (
	Exact        Clock = iota // to the nanosecond
	WholeSeconds              // or rounded to the second, as a table of contents has them
)

// maxDiffs is how many differences are worth reading.
const maxDiffs = 20

// Differences compares a tree with what it should be, field by field, and
// returns the first few differences. A nil modification time is any.
func Differences(want, got []Row, clock Clock) []string {
	var out []string
	report := func(format string, args ...any) bool {
		out = append(out, fmt.Sprintf(format, args...))
		return len(out) < maxDiffs
	}
	for len(want) > 0 || len(got) > 0 {
		switch {
		case len(got) == 0 || len(want) > 0 && want[0].Path < got[0].Path:
			if !report("missing: %q", want[0].Path) {
				return out
			}
			want = want[1:]
		case len(want) == 0 || got[0].Path < want[0].Path:
			if !report("not in the image: %q", got[0].Path) {
				return out
			}
			got = got[1:]
		default:
			if d := cmp.Diff(want[0], settle(got[0], want[0], clock)); d != "" && !report("%q differs (-want +got):\n%s", want[0].Path, d) {
				return out
			}
			want, got = want[1:], got[1:]
		}
	}
	return out
}

// settle gives got the wanted time if that difference is allowed.
func settle(got, want Row, clock Clock) Row {
	switch {
	case want.MtimeNs == nil:
		got.MtimeNs = nil
	case clock == WholeSeconds && got.MtimeNs != nil && *got.MtimeNs%int64(time.Second) == 0:
		if d := *got.MtimeNs - *want.MtimeNs; d > -int64(time.Second) && d < int64(time.Second) {
			got.MtimeNs = want.MtimeNs
		}
	}
	return got
}
