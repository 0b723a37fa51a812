package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// scripts returns a layer of files that call others by name, each of which is a
// span; or, as gzip, all of which are one.
func scripts(t *testing.T, form string, texts map[string]string) *bottled {
	t.Helper()
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(texts[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(texts[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if form == "estargz" {
		return bottleTOC(t, raw.Bytes(), nil, estargz.WithCompressionLevel(gzip.BestSpeed))
	}
	var st stage
	b := gzipped(t, raw.Bytes())
	x, err := Stream(t.Context(), &wire{blob: b}, descriptor(b, mediaGzip, nil), digest.FromBytes(raw.Bytes()), StreamOptions{Stage: &st})
	if err != nil {
		t.Fatal(err)
	}
	return &bottled{x, b, st.Bytes()}
}

// programs are two layers: a file of the first one names one in each, and the one
// there a further one in the second. All end differently, so that none is guessed
// as a neighbour.
func programs(t *testing.T, form string) [2]*bottled {
	t.Helper()
	return [2]*bottled{
		scripts(t, form, map[string]string{"bin/run.aa": "use lib.here.bb; use far.there.cc", "lib/here.bb": "use far.last.dd", "aaa/other.ee": "other"}),
		scripts(t, "estargz", map[string]string{"far/there.cc": "there", "far/last.dd": "last", "far/else.ff": "else"}),
	}
}

func spanOfFile(x *Index, name string) int {
	first, _ := spansOf(x.Spans, files(x)["/"+name].Addr, 1)
	return first
}

func readFile(t *testing.T, l *Layer, name string) {
	t.Helper()
	in := files(l.x)["/"+name]
	if _, err := l.ReadAt(t.Context(), make([]byte, in.Size), in.Addr); err != nil {
		t.Error(err)
	}
}

// stored returns the files that layers have.
func stored(layers []*Layer) (names []string) {
	for _, l := range layers {
		for name, in := range files(l.x) {
			if first, _ := spansOf(l.x.Spans, in.Addr, 1); in.Size > 0 && l.store.Has(first) {
				names = append(names, name[1:])
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestHear(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, form string
		guess      TrafficOptions
		foretold   bool
		first      []string // files that are there when the program has been read
		then       []string // and when what it names has been read
	}{
		{
			name: "across layers, and on", form: "estargz",
			first: []string{"bin/run.aa", "far/there.cc", "lib/here.bb"},
			then:  []string{"bin/run.aa", "far/last.dd", "far/there.cc", "lib/here.bb"},
		},
		{
			name: "nothing is to be guessed", form: "estargz", guess: TrafficOptions{NoGuess: true},
			first: []string{"bin/run.aa"}, then: []string{"bin/run.aa", "lib/here.bb"},
		},
		{
			name: "somebody knows better", form: "estargz", foretold: true,
			first: []string{"bin/run.aa", "lib/here.bb"}, then: []string{"bin/run.aa", "lib/here.bb"},
		},
		{
			name: "a span of several files", form: "gzip",
			first: []string{"aaa/other.ee", "bin/run.aa", "lib/here.bb"}, then: []string{"aaa/other.ee", "bin/run.aa", "lib/here.bb"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			both := programs(t, tc.form)
			synctest.Test(t, func(t *testing.T) {
				o := Options{Traffic: NewTraffic(tc.guess)}
				var layers []*Layer
				for _, b := range both {
					layers = append(layers, b.open(t, &wire{}, newShelf(b.x), o))
				}
				l := layers[0]
				if tc.foretold {
					order := []Wanted{{l, spanOfFile(l.x, "bin/run.aa")}, {l, spanOfFile(l.x, "lib/here.bb")}}
					if err := Prefetch(t.Context(), o.Traffic, order); err != nil {
						t.Fatal(err)
					}
				}
				readFile(t, l, "bin/run.aa")
				synctest.Wait()
				if diff := cmp.Diff(tc.first, stored(layers)); diff != "" {
					t.Error(diff)
				}
				readFile(t, l, "lib/here.bb")
				synctest.Wait()
				if diff := cmp.Diff(tc.then, stored(layers)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A layer may be closed while others are told that files of it are mentioned.
func TestHearWhileClosing(t *testing.T) {
	t.Parallel()
	both := programs(t, "estargz")
	for range 20 {
		o := Options{Traffic: NewTraffic(TrafficOptions{})}
		var layers []*Layer
		for _, b := range both {
			layers = append(layers, b.open(t, &wire{}, newShelf(b.x), o))
		}
		var wg sync.WaitGroup
		wg.Go(func() { readFile(t, layers[0], "bin/run.aa") })
		wg.Go(func() {
			if err := layers[1].Close(); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		readFile(t, layers[0], "lib/here.bb")
	}
}
