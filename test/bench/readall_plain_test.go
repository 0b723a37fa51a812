//go:build linux

package bench

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	// readRatio is what mounting with an index and reading everything may take,
	// of pulling, unpacking and reading everything.
	readRatio = 1.0
	// lazyShare is how much of an image with an index a mount fetches at most
	// before anything is read.
	lazyShare = 0.03
)

// BenchmarkReadEverything: who shares an index and then reads the whole image
// is not worse off than with a pull.
func BenchmarkReadEverything(b *testing.B) {
	f := newFirstMount(b, testkit.Link{Delay: time.Millisecond, BytesPerSecond: 1e9 / 8})
	maker := testkit.NewPeel(b)
	maker.Must("index", "create", f.ref())
	maker.Must("index", "push", f.ref())
	for b.Loop() {
		var pulls []float64
		f.mounts, f.cpu = nil, nil
		for range *rounds {
			pulls = append(pulls, f.pullAndRead())
			f.mountAndRead()
		}
		f.report("pull-and-read", pulls, readRatio)
	}
}

// pullAndRead has a new containerd pull, unpack and mount the image, and reads
// all of it.
func (f *firstMount) pullAndRead() float64 {
	f.b.Helper()
	d := newDaemon(f.b)
	defer d.stop()
	dir := f.b.TempDir()
	unix.Sync()
	start := time.Now()
	d.pull(f.ref())
	d.must("images", "mount", "--snapshotter", "overlayfs", f.ref(), dir)
	defer d.must("images", "unmount", dir)
	timed(f.b, "tar -C "+dir+" -cf - . | cat > /dev/null")
	return time.Since(start).Seconds()
}

// mountAndRead mounts the image with an empty cache and the index in the
// registry, and reads all of it.
func (f *firstMount) mountAndRead() {
	f.b.Helper()
	p := testkit.NewPeel(f.b)
	unix.Sync()
	_, before := f.line.Count()
	var lazy int64
	f.mounts = append(f.mounts, seconds(func() {
		dir := p.Mount(f.ref())
		_, lazy = f.line.Count()
		lazy -= before
		timed(f.b, "tar -C "+dir+" -cf - . | cat > /dev/null")
	}))
	_, all := f.line.Count()
	f.b.Logf("%d bytes to mount, %d for everything", lazy, all-before)
	if lazy > int64(lazyShare*float64(f.size)) {
		f.b.Errorf("%d bytes fetched before anything was read: the index is not used", lazy)
	}
	f.done(p)
}
