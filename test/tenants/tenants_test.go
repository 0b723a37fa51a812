//go:build linux

package tenants

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	tenants   = 10
	bandwidth = 12_500_000 // bytes a second of the line: 100 Mbit/s
	delay     = 40 * time.Millisecond
	rounds    = 3

	smallFiles = 120
	largeFiles = 2
	largeSize  = 1_500_000
	largePart  = 256 << 10 // bytes of a large file that are read at once

	// most times the latency of a mount alone, at the 99th percentile of all reads,
	// and of small ones, which the others' long ranges must not keep waiting.
	most = 2.0
)

// A tenant is an image, and what reads it in some order.
type tenant struct {
	repo  string
	form  testkit.Form
	files []file // in the order of the workload
}

type file struct {
	name string
	seed uint64
	size int
}

func (f file) content() []byte { return testkit.Noise(f.seed, f.size) }

func (f file) large() bool { return f.size == largeSize }

// newTenant is that of a number: each has other files, half of them another
// format, and two of them each order of reading.
func newTenant(n int) tenant {
	o := tenant{repo: fmt.Sprintf("ten/ant%d", n), form: []testkit.Form{testkit.Stargz, testkit.ZstdChunked}[n%2]}
	r := rand.New(rand.NewPCG(uint64(n), 0))
	for i := range smallFiles {
		o.files = append(o.files, file{fmt.Sprintf("%d/small-%d", i%7, i), uint64(1000*n + i), 2000 + r.IntN(30_000)})
	}
	for i := range largeFiles {
		o.files = append(o.files, file{fmt.Sprintf("large-%d", i), uint64(1000*n + 900 + i), largeSize})
	}
	return o
}

// entries are the image's.
func (o *tenant) entries() (out []testkit.Entry) {
	for _, f := range o.files {
		out = append(out, testkit.File(f.name, f.content()))
	}
	return out
}

// arrange puts the files into the order of the n-th workload.
func (o *tenant) arrange(n int) {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	switch n / 2 {
	case 0: // as they lie
	case 1: // from the end
		slices.Reverse(o.files)
	case 2: // the large ones first
		slices.SortStableFunc(o.files, func(a, b file) int { return b.size/largeSize - a.size/largeSize })
		r.Shuffle(smallFiles, func(i, j int) {
			i, j = i+largeFiles, j+largeFiles
			o.files[i], o.files[j] = o.files[j], o.files[i]
		})
	default: // any
		r.Shuffle(len(o.files), func(i, j int) { o.files[i], o.files[j] = o.files[j], o.files[i] })
	}
}

// latencies are how long reads took.
type latencies struct{ small, large []time.Duration }

// read does what the workload does, and times it.
func (o *tenant) read(root string) (l latencies, err error) {
	for _, f := range o.files {
		want := f.content()
		took := &l.small
		if f.large() {
			took = &l.large
		}
		if err := readFile(filepath.Join(root, f.name), want, took); err != nil {
			return l, err
		}
	}
	return l, nil
}

func readFile(name string, want []byte, took *[]time.Duration) error {
	began := time.Now()
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, largePart)
	for off := 0; off < len(want); {
		n, err := f.ReadAt(buf[:min(len(buf), len(want)-off)], int64(off))
		if err != nil {
			return err
		}
		*took = append(*took, time.Since(began))
		if !bytes.Equal(buf[:n], want[off:][:n]) {
			return fmt.Errorf("%s: other bytes at %d", name, off)
		}
		off += n
		began = time.Now()
	}
	return nil
}

func (l *latencies) add(o latencies) {
	l.small, l.large = append(l.small, o.small...), append(l.large, o.large...)
}

func (l *latencies) all() []time.Duration { return slices.Concat(l.small, l.large) }

// percentile is the p-th of some durations.
func percentile(of []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)-1)*p/100]
}

func (l *latencies) String() string {
	show := func(of []time.Duration) string {
		return fmt.Sprintf("p50 %4d ms, p90 %4d ms, p99 %4d ms, max %4d ms", percentile(of, 50).Milliseconds(),
			percentile(of, 90).Milliseconds(), percentile(of, 99).Milliseconds(), percentile(of, 100).Milliseconds())
	}
	return fmt.Sprintf("%d reads: %s; small: %s; large: %s", len(l.all()), show(l.all()), show(l.small), show(l.large))
}

// place is where a tenant's image is mounted from, and with which cache.
type place struct {
	p    *testkit.Peel
	line *testkit.Line
}

// run has all tenants read at once.
func run(t *testing.T, all []tenant, at func(i int) place) latencies {
	t.Helper()
	roots := make([]string, len(all))
	lines := map[*testkit.Line]bool{}
	var mounts sync.WaitGroup
	for i := range all {
		where := at(i)
		lines[where.line] = true
		roots[i] = where.p.Dir()
		mounts.Go(func() {
			if r := where.p.Run("mount", where.line.Host()+"/"+all[i].repo+":v1", roots[i]); r.Code != testkit.OK {
				t.Errorf("mount: exit code %d\n%s", r.Code, r.Stderr)
			}
		})
	}
	mounts.Wait()
	if t.Failed() {
		t.FailNow()
	}
	began := time.Now()
	var mu sync.Mutex // guards sum
	var sum latencies
	var readers sync.WaitGroup
	for i := range all {
		readers.Go(func() {
			l, err := all[i].read(roots[i])
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			sum.add(l)
		})
	}
	readers.Wait()
	var bytes, requests int64
	for l := range lines {
		r, b := l.Count()
		bytes, requests = bytes+b, requests+r
	}
	t.Logf("%4.1f s, %4d requests, %5.1f MB: %s", time.Since(began).Seconds(), requests, float64(bytes)/1e6, &sum)
	for i := range all {
		at(i).p.Umount(roots[i])
	}
	return sum
}

// TestTenants: with ten mounts on a line, reads take no more than twice as long
// as on a line of a tenth for each.
func TestTenants(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	all := make([]tenant, tenants)
	for i := range all {
		all[i] = newTenant(i)
		reg.Publish(t, all[i].repo, "v1", testkit.Encode(t, all[i].form, all[i].entries()...))
		all[i].arrange(i)
	}
	for n := 1; ; n++ {
		one := place{testkit.NewPeel(t), reg.Behind(t, testkit.Link{Delay: delay, BytesPerSecond: bandwidth})}
		shared := run(t, all, func(int) place { return one })
		own := make([]place, tenants)
		for i := range own {
			own[i] = place{testkit.NewPeel(t), reg.Behind(t, testkit.Link{Delay: delay, BytesPerSecond: bandwidth / tenants})}
		}
		alone := run(t, all, func(i int) place { return own[i] })
		whole, small := ratio(shared.all(), alone.all()), ratio(shared.small, alone.small)
		t.Logf("round %d: p99 is %.2f × that of a mount alone on a tenth of the line, %.2f × for small reads", n, whole, small)
		switch {
		case whole < most && small < most:
			return
		case n == rounds:
			t.Fatalf("p99 is %.2f × that of a mount alone on a tenth of the line, %.2f × for small reads, at most %.0f",
				whole, small, most)
		}
	}
}

// ratio is that of the 99th percentiles.
func ratio(a, b []time.Duration) float64 {
	return float64(percentile(a, 99)) / float64(percentile(b, 99))
}
