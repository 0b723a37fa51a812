//go:build linux

package fill

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// TestWhole: the image becomes whole and proved, each byte having come once,
// and needs no registry then.
func TestWhole(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form, 20, testkit.Link{Delay: 5 * time.Millisecond})
			root := x.p.Mount(x.ref, "--fill")
			x.filled(t)
			t.Logf("%d bytes sent for blobs of %d", x.sent(), x.size)
			if most := x.size * 11 / 10; x.sent() > most {
				t.Errorf("%d bytes sent, at most %d (110 %% of the blobs)", x.sent(), most)
			}
			x.reg.Stop()
			before := x.sent()
			x.readAll(t, root)
			x.p.Umount(root)
			x.readAll(t, x.p.Mount(x.ref, "--pull=never", "--require=proved", "--fill"))
			if n := x.sent() - before; n > 0 {
				t.Errorf("%d bytes sent for what is here", n)
			}
		})
	}
}

// TestKilled: a fill goes on where a killed one ended.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form, 24, testkit.Link{BytesPerSecond: 4_000_000})
			root := x.p.Mount(x.ref, "--fill")
			if !x.p.Until(patience, func() bool { return x.sent() > x.size*2/5 }) {
				t.Fatalf("only %d bytes sent of %d", x.sent(), x.size)
			}
			x.kill(t, root)
			if in := x.inspect(t); in.whole() {
				t.Fatal("it was not killed in the middle")
			}
			killed := x.sent()
			root = x.p.Mount(x.ref, "--fill")
			x.filled(t)
			t.Logf("%d bytes sent before, %d in all for blobs of %d", killed, x.sent(), x.size)
			if most := x.size * 11 / 10; x.sent() > most {
				t.Errorf("%d bytes sent, at most %d (110 %% of the blobs)", x.sent(), most)
			}
			x.reg.Stop()
			x.readAll(t, root)
		})
	}
}

// TestUmount: a fill keeps nobody who unmounts.
func TestUmount(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form, 24, testkit.Link{Delay: 40 * time.Millisecond, BytesPerSecond: 1_000_000})
			root := x.p.Mount(x.ref, "--fill")
			before := x.sent()
			x.p.Until(patience, func() bool { return x.sent() > before+1_000_000 })
			began := time.Now()
			x.p.Umount(root)
			if took := time.Since(began); took > time.Second {
				t.Errorf("peel umount took %s", took)
			}
			if x.inspect(t).whole() {
				t.Error("it was not under way")
			}
		})
	}
}

// TestRate: what a capped fill takes of the line, of layers that pass by whole
// and of those that only lack something: never more than it may, and as much
// unless the machine is busy with something else.
func TestRate(t *testing.T) {
	t.Parallel()
	const rate, window, windows = 1_500_000, 3 * time.Second, 3
	for _, proved := range []string{"claimed", "proved"} {
		t.Run(proved, func(t *testing.T) {
			t.Parallel()
			x := prepare(t, testkit.Stargz, 48, testkit.Link{Delay: 10 * time.Millisecond})
			if proved == "proved" {
				x.p.Must("verify", x.ref)
			}
			x.p.Mount(x.ref, "--fill", "--fill-rate=1.5MB")
			begin := x.sent()
			x.p.Until(patience, func() bool { return x.sent() > begin+2*rate }) // what it may catch up with is behind it
			best := 0.0
			for range windows {
				start, before := time.Now(), x.sent()
				x.p.Until(window, func() bool { return false })
				got := float64(x.sent()-before) / time.Since(start).Seconds()
				t.Logf("%.0f bytes a second; the cap is %d", got, rate)
				best = max(best, got)
				if math.Abs(got/rate-1) <= 0.15 {
					break
				}
			}
			if math.Abs(best/rate-1) > 0.15 {
				t.Errorf("%.0f bytes a second, not %d ± 15 %%", best, rate)
			}
			if in := x.inspect(t); in.whole() || in.Layers[0].Trust != proved {
				t.Errorf("it has ended meanwhile, or is not %s: %+v", proved, in)
			}
		})
	}
}

// TestMissing: of layers that are proved, what is here is not fetched again.
func TestMissing(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form, 8, testkit.Link{})
			x.p.Must("verify", x.ref)
			root := x.p.Mount(x.ref, "--prefetch=none")
			before := x.sent()
			for i := range x.files {
				readRight(t, root, 0, i)
			}
			x.p.Umount(root)
			root = x.p.Mount(x.ref, "--fill")
			x.filled(t)
			if n, most := x.sent()-before, x.size*11/10; n > most {
				t.Errorf("%d bytes sent, at most %d (110 %% of the blobs)", n, most)
			}
			x.reg.Stop()
			x.readAll(t, root)
		})
	}
}

// TestReaders: a fill costs readers of what is not there little.
func TestReaders(t *testing.T) {
	t.Parallel()
	const rounds, reads = 3, 12
	link := testkit.Link{Delay: 40 * time.Millisecond, BytesPerSecond: 12_500_000}
	x := prepare(t, testkit.Stargz, 100, link)
	// The best of some rounds: the machine may be busy with something else.
	fastest := func(flags ...string) time.Duration {
		best := time.Hour
		for range rounds {
			y := *x
			y.p = testkit.NewPeel(t)
			root := y.p.Mount(y.ref, append(flags, "--prefetch=none")...)
			if len(flags) > 0 {
				begin := y.sent()
				y.p.Until(patience, func() bool { return y.sent() > begin+1_000_000 })
			}
			began := time.Now()
			for i := range reads {
				// From the end of the upper layer: far from where a fill begins.
				readRight(t, root, layers-1, x.files-1-3*i)
			}
			best = min(best, time.Since(began))
			if len(flags) > 0 && y.inspect(t).whole() {
				t.Error("the fill has ended meanwhile")
			}
			y.p.Umount(root)
		}
		return best
	}
	alone, beside := fastest(), fastest("--fill")
	t.Logf("%d files take %s, beside a fill %s (%.2f ×)", reads, alone, beside, float64(beside)/float64(alone))
	if beside > 2*alone {
		t.Errorf("%s beside a fill, %s without", beside, alone)
	}
}

func readRight(t *testing.T, root string, layer, i int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(root, name(layer, i)))
	if err != nil || !bytes.Equal(got, content(layer, i)) {
		t.Errorf("%s: %d bytes, %v", name(layer, i), len(got), err)
	}
}

// TestTwoMounts: of two processes that fill from the same blobs, one fetches.
func TestTwoMounts(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.ZstdChunked, 20, testkit.Link{BytesPerSecond: 8_000_000})
	one := x.p.Mount(x.ref, "--fill")
	two := x.p.Mount(x.ref, "--fill")
	x.p.Until(patience, func() bool { return x.sent() > x.size/4 })
	x.p.Umount(one) // the other one goes on
	x.filled(t)
	if most := x.size * 11 / 10; x.sent() > most {
		t.Errorf("%d bytes sent, at most %d (110 %% of the blobs)", x.sent(), most)
	}
	x.reg.Stop()
	x.readAll(t, two)
}

// TestRaised: who reads what a slow fill is at just then does not wait for its
// pace, whether the layer passes by whole or only lacks something.
func TestRaised(t *testing.T) {
	t.Parallel()
	for _, proved := range []string{"claimed", "proved"} {
		t.Run(proved, func(t *testing.T) {
			t.Parallel()
			x := prepare(t, testkit.Stargz, 8, testkit.Link{Delay: 10 * time.Millisecond})
			if proved == "proved" {
				x.p.Must("verify", x.ref)
			}
			root := x.p.Mount(x.ref, "--fill", "--fill-rate=50KB", "--prefetch=none")
			begin := x.sent()
			x.p.Until(patience, func() bool { return x.sent() > begin+100_000 })
			began := time.Now()
			for i := range x.files {
				readRight(t, root, 0, i)
			}
			took, most := time.Since(began), 5*time.Second // at the fill's pace: 40 s
			t.Logf("a layer of %d bytes took %s", x.layers[0].Desc.Size, took)
			if took > most {
				t.Errorf("reading what is being fetched took %s, at most %s", took, most)
			}
		})
	}
}

// TestEarly: what is left of an image that is shown early is fetched once it is
// open.
func TestEarly(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.Stargz, 4, testkit.Link{BytesPerSecond: 4_000_000})
	streamed := testkit.Encode(t, testkit.Gzip, testkit.File("streamed", content(9, 9)))
	x.reg.Publish(t, "fi/ll", "early", append(x.layers, streamed)...)
	x.ref = x.line.Host() + "/fi/ll:early"
	root := x.p.Mount(x.ref, "--fill", "--early")
	whole := func() bool {
		in := x.inspect(t)
		return len(in.Layers) == 3 && in.Layers[2].Access == "streamed" && inspected{in.Layers[:2]}.whole()
	}
	if !x.p.Until(patience, whole) {
		t.Fatalf("not whole after %s: %+v", patience, x.inspect(t))
	}
	x.reg.Stop()
	x.readAll(t, root)
}

// TestWrongBlob: a blob that is another than the manifest says, though no file
// shows it, is told, and proves nothing.
func TestWrongBlob(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.Stargz, 4, testkit.Link{})
	proxy := testkit.NewProxy(t, x.reg.Host())
	wrong := bytes.Clone(x.layers[0].Blob)
	wrong[4] ^= 1 // the time in the header of the first gzip member
	proxy.Inject(testkit.Fault{Path: x.layers[0].Desc.Digest.String(), Do: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(bytes.NewReader(wrong), 0, int64(len(wrong))))
		})
	}})
	x.ref = proxy.Ref("fi/ll", "v1")
	root := x.p.Mount(x.ref, "--fill")
	told := func() bool { return strings.Contains(x.p.Logs(), "cannot be made whole") }
	if !x.p.Until(patience, told) {
		t.Fatalf("nothing is told:\n%s", x.p.Logs())
	}
	x.p.Until(patience, func() bool { return x.inspect(t).Layers[1].Trust == "proved" })
	in := x.inspect(t)
	if got, want := []string{in.Layers[0].Trust, in.Layers[1].Trust}, []string{"claimed", "proved"}; got[0] != want[0] || got[1] != want[1] {
		t.Errorf("layers are %q, not %q", got, want)
	}
	if n := strings.Count(x.p.Logs(), "cannot be made whole"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if log := x.p.Logs(); strings.Count(log[strings.Index(log, "cannot be made whole"):], "sha256:") < 3 {
		t.Errorf("both digests are not told:\n%s", log)
	}
	x.readAll(t, root)
	if left, err := filepath.Glob(filepath.Join(x.p.Cache, "fill", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
