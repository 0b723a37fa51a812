package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peelfs/peel/internal/priority"
	"github.com/peelfs/peel/layer"
)

// ranged is a blob that notes what it is asked for.
type ranged struct {
	blob  []byte
	asked [][2]int64
	cut   int // bytes that are missing at the end of each answer
}

func (r *ranged) Size() int64 { return int64(len(r.blob)) }

func (r *ranged) ReadRange(_ context.Context, off, n int64) (io.ReadCloser, error) {
	r.asked = append(r.asked, [2]int64{off, n})
	return io.NopCloser(bytes.NewReader(r.blob[off:][:n-int64(r.cut)])), nil
}

func newRanged(n int) *ranged {
	r := &ranged{blob: make([]byte, n)}
	for i := range r.blob {
		r.blob[i] = byte(i * i >> 8)
	}
	return r
}

func TestPace(t *testing.T) {
	t.Parallel()
	const second = 16 * minPiece // so that a piece is twice the smallest
	for _, c := range []struct {
		name   string
		rate   int64
		class  priority.Class
		off, n int64
		want   int // requests
		took   time.Duration
	}{
		{"a part", second, priority.Fill, 1, 4*second - 1, 32, 3500 * time.Millisecond},
		{"less than a piece", second, priority.Fill, 5, 10, 1, 0},
		{"nothing", second, priority.Fill, 5, 0, 1, 0},
		{"all", second, priority.Fill, 0, 4 * second, 1, 3500 * time.Millisecond},
		{"uncapped", 0, priority.Fill, 1, 4*second - 1, 4, 0},
		{"a reader's", second, priority.Demand, 1, 4*second - 1, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, src := newPace(c.rate, layer.NewTraffic(layer.TrafficOptions{})), newRanged(4*second)
				began := time.Now()
				body, err := paced(src).ReadRange(priority.With(p.with(t.Context()), c.class), c.off, c.n)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(body)
				if err != nil || !bytes.Equal(got, src.blob[c.off:][:c.n]) {
					t.Errorf("%d bytes of %d, %v", len(got), c.n, err)
				}
				if err := body.Close(); err != nil {
					t.Error(err)
				}
				if len(src.asked) != c.want {
					t.Errorf("%d requests, want %d", len(src.asked), c.want)
				}
				if took := time.Since(began); (took - c.took).Abs() > time.Millisecond {
					t.Errorf("it took %s, want %s", took, c.took)
				}
			})
		})
	}
}

// TestPaceShort: an answer that ends early is no end of the range.
func TestPaceShort(t *testing.T) {
	t.Parallel()
	p, src := newPace(0, nil), newRanged(1000)
	src.cut = 1
	body, err := p.pieces(priority.With(t.Context(), priority.Fill), src, 1, 900)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); len(got) != 899 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestPaceRaised: once somebody waits for a fill, it is none, whatever it waits
// for.
func TestPaceRaised(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, src := newPace(minPiece, nil), newRanged(100*minPiece)
		ctx := priority.With(p.with(t.Context()), priority.Fill)
		raise := time.AfterFunc(2*time.Second, func() { priority.Raise(ctx, priority.Demand) })
		defer raise.Stop()
		began := time.Now()
		body, err := paced(src).ReadRange(ctx, minPiece, 50*minPiece)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); n != 50*minPiece || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it took %s", took)
		}
		if last := src.asked[len(src.asked)-1]; last[0]+last[1] != 51*minPiece || last[1] < 40*minPiece {
			t.Errorf("the last request was for %d bytes", last[1])
		}
	})
}

// TestPaceCancelled: nobody waits for a fill that is over.
func TestPaceCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := newPace(minPiece, nil)
		body, err := p.pieces(priority.With(ctx, priority.Fill), newRanged(100*minPiece), 0, 100*minPiece)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, body); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// gauged is a source that knows its line.
type gauged struct {
	ranged
	bandwidth int64
}

func (g *gauged) Link() (time.Duration, int64) { return 0, g.bandwidth }

func TestPieceSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		cap, line int64
		want      int64
	}{
		{"nothing known", 0, 0, anyPiece},
		{"least cap", 1, 0, minPiece},
		{"cap", 1 << 20, 0, 128 << 10},
		{"slow line", 0, 1000, minPiece},
		{"line", 0, 5 << 20, 1 << 20},
		{"fast line", 0, 1 << 30, maxPiece},
		{"fast line, cap", 8 << 20, 1 << 30, 1 << 20},
		{"fast line, high cap", 1 << 30, 1 << 30, maxPiece},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := newPace(c.cap, nil).size(pacedSource{&gauged{bandwidth: c.line}}); got != c.want {
				t.Errorf("%d bytes, want %d", got, c.want)
			}
		})
	}
	if got := newPace(0, nil).size(newRanged(1)); got != anyPiece {
		t.Errorf("%d bytes of a source that knows no line", got)
	}
}
