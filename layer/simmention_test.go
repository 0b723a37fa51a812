package layer

import (
	"os"
	"slices"
	"testing"

	"github.com/peelfs/peel/layer/mention"
)

// traceMention is a span that another one mentions.
type traceMention struct {
	layer, span int
	how         mention.How
}

const (
	mentionFrom = mention.Qualified // the least likely way that leads to more
	mentionKept = mention.Nearest   // the least likely way that is kept
)

// mentions takes note of what the spans that a trace reads mention, and of what
// these mention in turn.
func (t *trace) mentions(tb testing.TB, layers []*Layer) {
	tb.Helper()
	words := layers[0].traffic.ears.dictionary()
	type at struct{ layer, span int }
	var todo []at
	for _, r := range t.Reads {
		first, n := spansOf(t.Layers[r.Layer].spans, r.Addr, r.Size)
		for i := first; i < first+n; i++ {
			todo = append(todo, at{r.Layer, i})
		}
	}
	for _, least := range []mention.How{mentionKept, mentionFrom} {
		var next []at
		for _, a := range todo {
			heard := t.Layers[a.layer].heard
			if _, done := heard[a.span]; done {
				continue
			}
			heard[a.span] = layers[a.layer].mentionedBy(tb, words, a.span, least)
			for _, m := range heard[a.span] {
				if m.how >= mentionFrom {
					next = append(next, at{m.layer, m.span})
				}
			}
		}
		todo = next
	}
}

func (l *Layer) mentionedBy(tb testing.TB, words *mention.Dictionary, i int, least mention.How) (all []traceMention) {
	tb.Helper()
	text, ok := l.text(i)
	if !ok {
		return nil
	}
	s := &l.x.Spans[i]
	packed, data := make([]byte, s.CLen), make([]byte, s.Len)
	if _, err := l.src.Source.(*fileBlob).f.ReadAt(packed, s.Off); err != nil {
		tb.Fatal(err)
	}
	if err := l.x.decodeSpan(i, packed, data); err != nil {
		tb.Fatal(err)
	}
	text.Bytes = data
	for _, m := range words.Find(text) {
		if m.How >= least {
			all = append(all, traceMention{int(m.ID >> 32), int(uint32(m.ID)), m.How})
		}
	}
	return all
}

// packMentions packs the mentions of a layer whose spans are renumbered: by span,
// how many were skipped, how many mentions there are, and of each the way and the
// layer, and how far from the one before.
func (t *trace) packMentions(n int, number []map[int]int) []int64 {
	out := []int64{}
	last := 0
	spans := make([]int, 0, len(t.Layers[n].heard))
	for i, m := range t.Layers[n].heard {
		if len(m) > 0 {
			spans = append(spans, i)
		}
	}
	slices.Sort(spans)
	for _, i := range spans {
		at := number[n][i]
		out = append(out, int64(at-last), int64(len(t.Layers[n].heard[i])))
		last = at
		before := 0
		for _, m := range t.Layers[n].heard[i] {
			to := number[m.layer][m.span]
			out = append(out, int64(m.layer*mention.Hows)+int64(m.how), int64(to-before))
			before = to
		}
	}
	return out
}

func unpackMentions(packed []int64) map[int][]traceMention {
	heard := make(map[int][]traceMention)
	for at := 0; len(packed) > 0; {
		at += int(packed[0])
		n := int(packed[1])
		packed = packed[2:]
		to := 0
		for range n {
			to += int(packed[1])
			heard[at] = append(heard[at], traceMention{
				layer: int(packed[0]) / mention.Hows, span: to, how: mention.How(packed[0] % int64(mention.Hows)),
			})
			packed = packed[2:]
		}
	}
	return heard
}

// BenchmarkRecordMentions adds what files mention to a trace that lies in testdata, or
// renews it:
//
//	PEEL_NAMES=NAME PEEL_LAYOUT=DIR PEEL_TAG=TAG go test -run xxx -bench RecordMentions -benchtime 1x ./layer
func BenchmarkRecordMentions(b *testing.B) {
	name := os.Getenv("PEEL_NAMES")
	if name == "" {
		return // benchmarks are run for their figures
	}
	old := recorded(b)[name]
	tr, layers := layersOf(b)
	for k := range old.Layers {
		for i := range old.Layers[k].spans {
			s := &old.Layers[k].spans[i]
			first, _ := spansOf(tr.Layers[k].spans, s.Addr, s.Len)
			if now := tr.Layers[k].spans[first]; now.Off != s.Off || now.CLen != s.CLen {
				b.Fatalf("%s is of another image: layer %d has %+v, not %+v", name, k, now, *s)
			}
		}
	}
	tr.Reads, tr.Tail = old.Reads, old.Tail
	tr.mentions(b, layers)
	write(b, name, tr)
}
