package ztoc

import (
	"cmp"
	"encoding/json"
	"slices"
)

const (
	// MaxPrefetch is the size limit of a prefetch list, in bytes.
	MaxPrefetch = 1 << 20
	// maxRuns bounds the runs in one.
	maxRuns = 1 << 16
)

// SpanRun is a run of spans, [First, First+N) by their numbers in the zTOC.
type SpanRun struct{ First, N int }

// prefetchList is a list of spans as SOCI's tools write it: ends are within
// the run, and what is to come first has the lowest priority.
type prefetchList struct {
	Spans []prefetchRun `json:"prefetch_spans"`
}

type prefetchRun struct {
	Start    int64 `json:"start_span"`
	End      int64 `json:"end_span"`
	Priority int64 `json:"priority"`
}

// ParsePrefetch reads a blob of MediaTypePrefetch. The runs come in the order in
// which they are to be fetched; which spans there are is the caller's to know.
func ParsePrefetch(raw []byte) ([]SpanRun, error) {
	if len(raw) > MaxPrefetch {
		return nil, malformed("prefetch list: %d bytes, of %d allowed", len(raw), MaxPrefetch)
	}
	var list prefetchList
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, malformed("prefetch list: %w", err)
	}
	if len(list.Spans) > maxRuns {
		return nil, malformed("prefetch list: %d runs, of %d allowed", len(list.Spans), maxRuns)
	}
	slices.SortStableFunc(list.Spans, func(a, b prefetchRun) int { return cmp.Compare(a.Priority, b.Priority) })
	var out []SpanRun
	for _, s := range list.Spans {
		if s.Start < 0 || s.End < s.Start || s.End >= maxSpans {
			return nil, malformed("prefetch list: spans %d to %d", s.Start, s.End)
		}
		out = append(out, SpanRun{int(s.Start), int(s.End - s.Start + 1)})
	}
	return out, nil
}
