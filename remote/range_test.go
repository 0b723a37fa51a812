package remote

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	bad := contentRange{-1, -1, -1}
	for _, tt := range []struct {
		in   string
		want contentRange
		ok   bool
	}{
		{"bytes 0-0/1", contentRange{0, 0, 1}, true},
		{"bytes 5-9/*", contentRange{5, 9, -1}, true},
		{"BYTES 5-9/10", contentRange{5, 9, 10}, true},
		{"bytes */10", contentRange{-1, -1, 10}, true},
		{"bytes 0-9223372036854775805/9223372036854775806", contentRange{0, 9223372036854775805, 9223372036854775806}, true},
		{"", bad, false},
		{"bytes", bad, false},
		{"bytes=0-1/2", bad, false},
		{"items 0-1/2", bad, false},
		{"bytes */*", bad, false},
		{"bytes 9-5/10", bad, false},
		{"bytes 5-10/10", bad, false},
		{"bytes -5/10", bad, false},
		{"bytes 5-/10", bad, false},
		{"bytes 5/10", bad, false},
		{"bytes 5-9", bad, false},
		{"bytes 5-9/", bad, false},
		{"bytes +5-9/10", bad, false},
		{"bytes 0x5-9/10", bad, false},
		{"bytes 5 - 9/10", bad, false},
		{"bytes 5-9/-1", bad, false},
		{"bytes 0-9223372036854775807/*", bad, false},
		{"bytes 0-99999999999999999999/*", bad, false},
	} {
		got, err := parseContentRange(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: %v, %v", tt.in, got, err)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 5-9", "bytes 0-9223372036854775807/*"} {
		f.Add(s, int64(5), int64(5), int64(10))
	}
	f.Fuzz(func(t *testing.T, s string, off, n, size int64) {
		r, err := parseContentRange(s)
		if err == nil && r.first >= 0 {
			if r.first > r.last || r.size >= 0 && r.last >= r.size {
				t.Fatalf("%q: %v", s, r)
			}
			shown := fmt.Sprintf("bytes %d-%d/%d", r.first, r.last, r.size)
			if r.size < 0 {
				shown = fmt.Sprintf("bytes %d-%d/*", r.first, r.last)
			}
			if again, err := parseContentRange(shown); err != nil || again != r {
				t.Fatalf("%q: %v, again %v, %v", s, r, again, err)
			}
		}
		if off < 0 || n <= 0 || size < 0 || off > size-n {
			return
		}
		w := window{off, n, size}
		for _, status := range []int{200, 206, 416} {
			p, err := w.pick(head{status, s, -1})
			if err == nil && (p.skip < 0 || p.skip > maxSkip || p.n < 1 || p.n > n) {
				t.Fatalf("%v, %d %q: %v", w, status, s, p)
			}
		}
	})
}

func TestPick(t *testing.T) {
	t.Parallel()
	middle := window{10, 20, 100}
	far := window{maxSkip + 1, 20, maxSkip + 100}
	for _, tt := range []struct {
		name string
		w    window
		h    head
		want piece
		err  error
	}{
		{"exact", middle, head{206, "bytes 10-29/100", 20}, piece{0, 20}, nil},
		{"size not told", middle, head{206, "bytes 10-29/*", 20}, piece{0, 20}, nil},
		{"short", middle, head{206, "bytes 10-14/100", 5}, piece{0, 5}, nil},
		{"long", middle, head{206, "bytes 10-30/100", 21}, piece{}, ErrRange},
		{"early", middle, head{206, "bytes 9-29/100", 21}, piece{}, ErrRange},
		{"late", middle, head{206, "bytes 11-29/100", 19}, piece{}, ErrRange},
		{"other size", middle, head{206, "bytes 10-29/101", 20}, piece{}, ErrVerify},
		{"no header", middle, head{206, "", 20}, piece{}, ErrRange},
		{"whole", middle, head{200, "", 100}, piece{10, 20}, nil},
		{"whole, length not told", middle, head{200, "", -1}, piece{10, 20}, nil},
		{"whole, other length", middle, head{200, "", 99}, piece{}, ErrVerify},
		{"whole, far", far, head{200, "", far.size}, piece{}, ErrRange},
		{"200 with a part", far, head{200, fmt.Sprintf("bytes %d-%d/%d", far.off, far.off+19, far.size), 20}, piece{0, 20}, nil},
		{"416", middle, head{416, "bytes */100", 0}, piece{}, ErrRange},
		{"416, shorter", middle, head{416, "bytes */5", 0}, piece{}, ErrVerify},
		{"400", middle, head{400, "", 0}, piece{}, ErrRange},
	} {
		got, err := tt.w.pick(tt.h)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(piece{})); diff != "" || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

// Whoever looks for the cause wants to see the header.
func TestPickNamesTheHeader(t *testing.T) {
	t.Parallel()
	for _, crange := range []string{"bytes 9-29/100", "bytes 10-30/*", "items 10-29/100", ""} {
		_, err := window{10, 20, 100}.pick(head{206, crange, 20})
		if err == nil || !strings.Contains(err.Error(), "Content-Range "+strconv.Quote(crange)) {
			t.Errorf("%q: %v", crange, err)
		}
	}
}

func TestRangeHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		w    window
		want string
	}{
		{window{0, 100, 100}, ""},
		{window{0, 99, 100}, "bytes=0-98"},
		{window{99, 1, 100}, "bytes=99-99"},
	} {
		if got := tt.w.header(); got != tt.want {
			t.Errorf("%v: %q", tt.w, got)
		}
	}
}
