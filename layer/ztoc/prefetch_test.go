package ztoc

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePrefetch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     []SpanRun
		err      error
	}{
		{"none", `{"version":"1.0"}`, nil, nil},
		{"ends are within", `{"version":"1.0","prefetch_spans":[{"start_span":10,"end_span":15},{"start_span":3,"end_span":3}]}`, []SpanRun{{10, 6}, {3, 1}}, nil},
		{"the lowest priority first", `{"prefetch_spans":[{"start_span":1,"end_span":1,"priority":2},{"start_span":2,"end_span":2,"priority":1},{"start_span":3,"end_span":3,"priority":2}]}`, []SpanRun{{2, 1}, {1, 1}, {3, 1}}, nil},
		{"no JSON", `x`, nil, ErrFormat},
		{"words", `{"prefetch_spans":[{"start_span":"x"}]}`, nil, ErrFormat},
		{"negative", `{"prefetch_spans":[{"start_span":-1,"end_span":1}]}`, nil, ErrFormat},
		{"backwards", `{"prefetch_spans":[{"start_span":2,"end_span":1}]}`, nil, ErrFormat},
		{"huge", `{"prefetch_spans":[{"start_span":2,"end_span":9223372036854775807}]}`, nil, ErrFormat},
		{"many", `{"prefetch_spans":[` + strings.Repeat("{},", maxRuns) + `{}]}`, nil, ErrFormat},
		{"long", string(bytes.Repeat([]byte(" "), MaxPrefetch+1)), nil, ErrFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePrefetch([]byte(tc.in))
			if d := cmp.Diff(tc.want, got); d != "" || !errors.Is(err, tc.err) {
				t.Errorf("%v\n%s", err, d)
			}
		})
	}
}

func FuzzParsePrefetch(f *testing.F) {
	f.Add([]byte(`{"prefetch_spans":[{"start_span":10,"end_span":15,"priority":1},{"start_span":3,"end_span":3}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		runs, err := ParsePrefetch(raw)
		if err != nil {
			return
		}
		for _, r := range runs {
			if r.First < 0 || r.N <= 0 || r.First+r.N > maxSpans {
				t.Errorf("%+v", r)
			}
		}
	})
}
