//go:build linux

package plain

import (
	"net/http"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// image is two layers of a form behind a proxy.
type image struct {
	entries []testkit.Entry
	size    int64 // of the layers, compressed bytes
	tars    int64 // of the layers, uncompressed bytes
	proxy   *testkit.Proxy
	ref     string
}

func newImage(t *testing.T, f form) image {
	t.Helper()
	const filesPerLayer = 30
	var layers []testkit.Layer
	var m image
	for n := range 2 {
		entries := files(n, filesPerLayer)
		l := f.encode(t, entries)
		m.entries = append(m.entries, entries...)
		m.size += l.Desc.Size
		m.tars += filesPerLayer * fileSize
		layers = append(layers, l)
	}
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "plain/resume", "v1", layers...)
	m.proxy = testkit.NewProxy(t, reg.Host())
	m.ref = m.proxy.Ref("plain/resume", "v1")
	return m
}

// fetched complains if more than share of the image, and spans uncompressed
// bytes, went over the line since the last time. It logs what did.
func (m image) fetched(t *testing.T, share float64, spans int64) {
	t.Helper()
	log := m.proxy.Log()
	n, most := testkit.Bytes(log), int64(share*float64(m.size))+spans*m.size/m.tars
	t.Logf("%d requests, %d bytes for layers of %d: %.3f", len(log), n, m.size, float64(n)/float64(m.size))
	if n <= most {
		return
	}
	t.Errorf("%d bytes fetched, at most %d", n, most)
	for _, r := range log {
		t.Logf("%s %s %s: %d, %d bytes", r.Method, r.Path, r.Range, r.Status, r.Bytes)
	}
}

// TestConnectionsBreak: a stream whose connection is reset goes on at the byte
// that is missing, however often.
func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	oneFrame := form{"zstd frame", func(t *testing.T, entries []testkit.Entry) testkit.Layer {
		t.Helper()
		return testkit.Encode(t, testkit.Zstd, entries...)
	}}
	for _, f := range append(forms(), oneFrame) {
		for _, fault := range []struct {
			name string
			do   func(int64) func(http.Handler) http.Handler
			most float64 // of the layers' size
		}{
			{"ends early", testkit.Cut, 1.02},
			// What is in the kernel's buffers when a reset comes is lost, however
			// fast it would have been read.
			{"reset", testkit.Reset, 1.25},
		} {
			t.Run(f.name+"/"+fault.name, func(t *testing.T) {
				t.Parallel()
				m := newImage(t, f)
				m.proxy.SetLink(testkit.Link{Delay: 5 * time.Millisecond, BytesPerSecond: 20_000_000})
				m.proxy.Inject(testkit.Fault{Path: "/blobs/", Do: fault.do(m.size / 8)})
				p := testkit.NewPeel(t)
				root := p.Mount(m.ref)
				m.fetched(t, fault.most, 0)
				m.proxy.Heal()
				sameAll(t, root, m.entries)
			})
		}
	}
}
