package jsonlist

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     []string
		err      string
	}{
		{"missing", "", nil, ""},
		{"null", " null\n", nil, ""},
		{"empty", "[]", nil, ""},
		{"as many as allowed", ` ["a", "b"]`, []string{"a", "b"}, ""},
		{"one more", `["a","b","c"]`, nil, "more than 2 elements"},
		{"object", "{}", nil, "not a list"},
		{"other elements", "[1]", nil, "cannot unmarshal number"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode[string]([]byte(tc.in), 2)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("got %v, want %q", err, tc.err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
