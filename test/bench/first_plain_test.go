//go:build linux

package bench

import (
	"context"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

// What the first mount of a plain gzip image may take at most.
const (
	slowRatio = 1.1 // of downloading the same blobs and throwing them away
	fastRatio = 0.6 // of containerd's pull and unpack
)

// firstMount is the setting of a comparison: an image behind a line.
type firstMount struct {
	b      *testing.B
	link   testkit.Link
	line   *testkit.Line
	blobs  []digest.Digest
	size   int64           // of the blobs, bytes
	cpu    []time.Duration // that peel used, a mount each
	mounts []float64       // seconds until the mount answered
}

const plainRepo = "bench/plain"

func newFirstMount(b *testing.B, l testkit.Link) *firstMount {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Fatal("mounting and unpacking take root")
	}
	layout := plainImage(b)
	f := &firstMount{b: b, link: l}
	if f.blobs, f.size = blobsOf(b, layout); f.size < plainLeast {
		b.Fatalf("the image has %d bytes compressed, not %d", f.size, plainLeast)
	}
	reg := testkit.NewRegistry(b)
	reg.Push(b, layout, "latest", plainRepo)
	f.line = reg.Behind(b, l)
	return f
}

func (f *firstMount) ref() string { return f.line.Host() + "/" + plainRepo + ":latest" }

// mount mounts the image with an empty cache, and unmounts it.
func (f *firstMount) mount() {
	f.b.Helper()
	p := testkit.NewPeel(f.b)
	unix.Sync()
	cmd := p.Command(f.b.Context(), "mount", f.ref(), p.Dir())
	var r testkit.Result
	f.mounts = append(f.mounts, seconds(func() { r = p.Finish(cmd) }))
	if r.Code != testkit.OK {
		f.b.Fatalf("peel mount: exit code %d\n%s", r.Code, r.Stderr)
	}
	f.done(p)
	f.cpu[len(f.cpu)-1] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// done notes what the server has used, and takes away the mount and the cache.
func (f *firstMount) done(p *testkit.Peel) {
	f.b.Helper()
	at := p.PS()[0]
	f.cpu = append(f.cpu, testkit.CPUTime(f.b, at.ServerPID))
	p.Umount(at.Mountpoint)
	if err := os.RemoveAll(p.Cache); err != nil {
		f.b.Error(err)
	}
}

// download fetches the blobs side by side and throws them away.
func (f *firstMount) download() float64 {
	f.b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: len(f.blobs), DisableCompression: true}
	defer transport.CloseIdleConnections()
	return seconds(func() {
		g, ctx := errgroup.WithContext(f.b.Context())
		for _, d := range f.blobs {
			g.Go(func() error {
				return fetch(ctx, transport, "http://"+f.line.Host()+"/v2/"+plainRepo+"/blobs/"+d.String())
			})
		}
		if err := g.Wait(); err != nil {
			f.b.Fatal(err)
		}
	})
}

func fetch(ctx context.Context, transport http.RoundTripper, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// pull has a new containerd pull and unpack the image.
func (f *firstMount) pull() float64 {
	f.b.Helper()
	d := newDaemon(f.b)
	defer d.stop()
	unix.Sync()
	return seconds(func() { d.pull(f.ref()) })
}

// report judges the mounts by what they are compared with.
func (f *firstMount) report(name string, other []float64, most float64) {
	f.b.Helper()
	ratio := median(f.mounts) / median(other)
	f.b.Logf("%d MB in %d layers at %v and %d Mbit/s: %s %s, peel %s, ratio %.2f (at most %.2f); processor time of peel %v",
		f.size/1e6, len(f.blobs), f.link.Delay, f.link.BytesPerSecond*8/1e6, name, show(other, "s"), show(f.mounts, "s"), ratio, most, f.cpu)
	f.b.ReportMetric(ratio, "ratio")
	f.b.ReportMetric(median(f.mounts), "peel-s")
	f.b.ReportMetric(median(other), name+"-s")
	f.b.ReportMetric(f.cpu[len(f.cpu)-1].Seconds(), "peel-cpu-s")
	if ratio > most {
		f.b.Errorf("peel takes %.2f of %s, at most %.2f", ratio, name, most)
	}
}

// BenchmarkFirstMountSlow: on a slow line a first mount of a plain image is
// ready about when its bytes are there.
func BenchmarkFirstMountSlow(b *testing.B) {
	f := newFirstMount(b, testkit.Link{Delay: 40 * time.Millisecond, BytesPerSecond: 100e6 / 8})
	for b.Loop() {
		var downloads []float64
		f.mounts, f.cpu = nil, nil
		for range *rounds {
			downloads = append(downloads, f.download())
			f.mount()
		}
		f.report("download", downloads, slowRatio)
	}
}

// BenchmarkFirstMountFast: on a fast line it is ready well before containerd
// has pulled and unpacked the same image.
func BenchmarkFirstMountFast(b *testing.B) {
	f := newFirstMount(b, testkit.Link{Delay: time.Millisecond, BytesPerSecond: 1e9 / 8})
	for b.Loop() {
		var pulls, downloads []float64
		f.mounts, f.cpu = nil, nil
		for range *rounds {
			pulls = append(pulls, f.pull())
			f.mount()
			downloads = append(downloads, f.download())
		}
		b.Logf("the download alone takes %s", show(downloads, "s"))
		f.report("pull", pulls, fastRatio)
	}
}
