//go:build linux

package faults

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	share   = 0.10 // of the answers that meet each kind of fault
	goneFor = 20 * time.Second

	parallel = 8      // readers
	block    = 500    // files that one of them reads in order
	enough   = 20_000 // files
	shown    = 5      // errors
)

// A layer is of packages, in a form.
type layer struct {
	form     testkit.Form
	packages []string
}

// layers of 20 000 files in all: most are streamed when the image is mounted; of
// those that are fetched when they are read, some come 64 KiB or more at a time,
// and 4000 one by one. In this weather a request takes a part of a second.
func layers() []layer {
	return []layer{
		{testkit.Gzip, []string{"libboost1.74-dev", "perl-modules-5.36"}},
		{testkit.StargzMin, []string{"ncurses-term", "linux-libc-dev"}},
		{testkit.Stargz, []string{"vim-runtime"}},
		{testkit.Stargz, []string{"tzdata", "manpages", "libpython3.11-stdlib"}},
	}
}

// publish builds the image and returns the digests of its files.
func publish(t *testing.T, reg *testkit.Registry) map[string]string {
	t.Helper()
	sums := map[string]string{}
	all := make([]testkit.Layer, len(layers()))
	var encoding sync.WaitGroup
	for i, l := range layers() {
		entries := testkit.Packages(t, l.packages...)
		encoding.Go(func() { all[i] = testkit.Encode(t, l.form, entries...) })
		for _, e := range entries {
			if name := path.Clean("/" + e.Name); e.Typeflag == tar.TypeReg {
				sum := sha256.Sum256(e.Data)
				sums[name] = hex.EncodeToString(sum[:])
			} else {
				delete(sums, name)
			}
		}
	}
	encoding.Wait()
	if t.Failed() {
		t.FailNow()
	}
	reg.Publish(t, "fau/lts", "v1", all...)
	return sums
}

// TestEverythingFails reads all files of an image while seven answers in ten are
// broken in one way or another; when half are read, the registry goes away for a
// while.
func TestEverythingFails(t *testing.T) {
	reg := testkit.NewRegistry(t)
	sums := publish(t, reg)
	if len(sums) < enough {
		t.Fatalf("the image has %d files, want %d", len(sums), enough)
	}
	proxy := testkit.NewProxy(t, reg.Host())
	storm := proxy.Storm(testkit.Everything(4, share))
	p := testkit.NewPeel(t)
	start := time.Now()
	root := p.Mount(proxy.Ref("fau/lts", "v1"))
	t.Logf("mounted after %v: %s", time.Since(start).Round(time.Second), storm)

	r := reading{t: t, root: root, sums: sums, half: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(r.all)
	<-r.half
	proxy.Stop()
	t.Logf("half of %d files read after %v: %s", len(sums), time.Since(start).Round(time.Second), storm)
	<-time.After(goneFor)
	before := r.read.Load()
	proxy.Start()
	all.Wait()
	t.Logf("all read after %v, the slowest file took %v: %s", time.Since(start).Round(time.Second), time.Duration(r.longest.Load()).Round(time.Millisecond), storm)
	if n := r.wrong.Load(); n > 0 {
		t.Errorf("%d files could not be read, or were not right", n)
	}
	if before == int64(len(sums)) {
		t.Error("everything had been read before the registry came back")
	}
	for _, fault := range []string{"500", "503", "429", "reset", "truncated", "corrupted", "stalled"} {
		if storm.Struck(fault) == 0 {
			t.Errorf("no answer was struck by %s", fault)
		}
	}
	p.Umount(root)
}

// reading compares all files of an image, several at a time.
type reading struct {
	t    *testing.T
	root string
	sums map[string]string
	half chan struct{} // closed when half of them are read

	read, wrong, longest atomic.Int64 // files, files, nanoseconds
}

func (r *reading) all() {
	blocks := make(chan []string)
	var readers sync.WaitGroup
	for range parallel {
		readers.Go(func() {
			for names := range blocks {
				for _, name := range names {
					r.one(name)
				}
			}
		})
	}
	for _, names := range order(r.sums) {
		blocks <- names
	}
	close(blocks)
	readers.Wait()
}

func (r *reading) one(name string) {
	began := time.Now()
	sum, err := testkit.Sum(filepath.Join(r.root, name))
	if (err != nil || sum != r.sums[name]) && r.wrong.Add(1) <= shown {
		r.t.Errorf("%s: digest %s, want %s, %v", name, sum, r.sums[name], err)
	}
	grow(&r.longest, time.Since(began))
	if r.read.Add(1) == int64(len(r.sums)/2) {
		close(r.half)
	}
}

// order cuts the sorted names into blocks and shuffles these, the same way each
// time: a registry that asks everybody to wait for a second after every tenth
// answer could not serve 20 000 files one by one.
func order(sums map[string]string) [][]string {
	blocks := slices.Collect(slices.Chunk(slices.Sorted(maps.Keys(sums)), block))
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	return blocks
}

func grow(longest *atomic.Int64, d time.Duration) {
	for old := longest.Load(); int64(d) > old && !longest.CompareAndSwap(old, int64(d)); old = longest.Load() {
	}
}
