package layer

import "testing"

func TestKindOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, a, b string
		same       bool
	}{
		{"suffix", "a.rb", "b.rb", true},
		{"other suffix", "a.rb", "a.py", false},
		{"versions", "libz.so.1.2.13", "libm.so", true},
		{"none", "README", "COPYING", true},
		{"hidden", ".profile", "Makefile", true},
		{"only a version", "python3.11", "bash", true},
		{"several", "x.cpython-311.pyc", "y.pyc", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := kindOf(tc.a) == kindOf(tc.b); got != tc.same {
				t.Errorf("%s and %s: same kind %t, want %t", tc.a, tc.b, got, tc.same)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		form   string
		sizes  []int
		shared bool // all files in one span
	}{
		{"estargz", []int{200 << 10, 1000, 130 << 10}, false},
		{"zstd:chunked", []int{200 << 10, 1000, 130 << 10}, false},
		{"gzip", []int{1000, 2000, 3000}, true},
	} {
		t.Run(tc.form, func(t *testing.T) {
			t.Parallel()
			x := bottle(t, tc.form, tc.sizes...).x
			places := x.places()
			owner := make(map[uint32]string)
			for name, in := range files(x) {
				if in.Size == 0 {
					continue
				}
				first, n := spansOf(x.Spans, in.Addr, in.Size)
				for i := first; i < first+n; i++ {
					file := places[i].file
					if (file == None) != tc.shared {
						t.Errorf("%s: span %d is of file %d", name, i, file)
					}
					if of, ok := owner[file]; ok && of != name && !tc.shared {
						t.Errorf("%s and %s are taken for one file", of, name)
					}
					owner[file] = name
					if places[i].dir == None {
						t.Errorf("%s: span %d is in no directory", name, i)
					}
				}
			}
		})
	}
}
