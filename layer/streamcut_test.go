package layer

import (
	"bytes"
	"compress/gzip"
	"slices"
	"testing"
)

// An entrance right behind a full buffer ends the chunk that the buffer is of.
func TestEntranceBehindFullBuffer(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{3 << 20, 1 << 20})
	var b bytes.Buffer
	members := 0
	for part := range slices.Chunk(raw, streamBuffer) {
		w := gzip.NewWriter(&b)
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		members++
	}
	p := b.Bytes()
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaTar, nil), "", StreamOptions{Stage: new(stage)})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Spans) != members {
		t.Errorf("%d spans of %d members", len(x.Spans), members)
	}
}
