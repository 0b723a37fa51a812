//go:build linux

package verify

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestPassingFaults breaks bodies in ways that a client can get over.
func TestPassingFaults(t *testing.T) {
	t.Parallel()
	const some = 100_000 // bytes
	for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked, testkit.Gzip, testkit.Zstd} {
		for _, tc := range []struct {
			name  string
			fault testkit.Fault
		}{
			{"bodies end early", testkit.Fault{Do: testkit.Cut(some)}},
			{"connections reset", testkit.Fault{Do: testkit.Reset(some)}},
			{"unavailable at first", testkit.Fault{Times: 2, Do: testkit.Answer(http.StatusServiceUnavailable, nil)}},
			{"too many requests at first", testkit.Fault{Times: 2, Do: testkit.Answer(http.StatusTooManyRequests, http.Header{"Retry-After": {"1"}})}},
		} {
			t.Run(string(form)+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				x := prepare(t, form)
				x.proxy.Inject(tc.fault)
				root := x.p.Mount(x.ref)
				if got, err := os.ReadFile(filepath.Join(root, "victim")); err != nil || !bytes.Equal(got, victim) {
					t.Errorf("%d bytes, %v; right: %v", len(got), err, bytes.Equal(got, victim))
				}
			})
		}
	}
}

// TestLastingFaults breaks bodies for good: the right bytes or an error.
func TestLastingFaults(t *testing.T) {
	t.Parallel()
	for _, form := range testkit.Forms() {
		for _, tc := range []struct {
			name string
			do   func(x fixture) func(http.Handler) http.Handler
		}{
			{"the blob is cut short", func(x fixture) func(http.Handler) http.Handler {
				return testkit.Serve(x.layer.Blob[:len(x.layer.Blob)-1000], nil)
			}},
			{"the blob is longer", func(x fixture) func(http.Handler) http.Handler {
				return testkit.Serve(append(bytes.Clone(x.layer.Blob), "more"...), nil)
			}},
			{"zeros of the right length", func(x fixture) func(http.Handler) http.Handler {
				return testkit.Serve(make([]byte, len(x.layer.Blob)), nil)
			}},
			{"the whole blob for a range", func(fixture) func(http.Handler) http.Handler { return testkit.IgnoreRange }},
			{"the whole blob twice", func(x fixture) func(http.Handler) http.Handler {
				return testkit.Serve(append(bytes.Clone(x.layer.Blob), x.layer.Blob...), nil)
			}},
		} {
			t.Run(string(form)+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				x := prepare(t, form)
				x.proxy.Inject(testkit.Fault{Path: x.layer.Desc.Digest.String(), Do: tc.do(x)})
				dir := x.p.Dir()
				r := x.p.Run("mount", x.ref, dir)
				if r.Code != testkit.OK {
					names(t, r.Stderr, x.layer.Desc.Digest.String())
					x.p.CheckLeftovers()
				} else {
					onlyRight(t, filepath.Join(dir, "victim"), victim)
					onlyRight(t, filepath.Join(dir, "other"), other)
					x.p.Umount(dir)
				}
				x.works(t)
			})
		}
	}
}

// onlyRight reads a file and allows errors, but no wrong byte.
func onlyRight(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if !bytes.HasPrefix(want, got) || err == nil && len(got) != len(want) {
		t.Errorf("%s: %d bytes that are not the file's, %v", name, len(got), err)
	}
}
