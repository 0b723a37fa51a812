//go:build linux

package lazy

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	targetSize = 10_000
	linkDelay  = 40 * time.Millisecond
	readAhead  = 4 << 20 // bytes past the last one read; does not know where a file ends
)

// image is three layers with mb megabytes of files that do not compress, one
// of them wanted.
func image(t *testing.T, f testkit.Form, mb int) (layers []testkit.Layer, size int64) {
	t.Helper()
	for n, file := range []int{200_000, 60_000, 20_000} {
		entries := []testkit.Entry{testkit.Dir("data")}
		for i := range mb * 1_000_000 / 3 / file {
			if i%100 == 0 {
				entries = append(entries, testkit.Dir(fmt.Sprintf("data/%d-%d", n, i/100)))
			}
			entries = append(entries, testkit.File(fmt.Sprintf("data/%d-%d/%d", n, i/100, i), testkit.Noise(uint64(n*100_000+i), file)))
		}
		if n == 1 {
			entries = append(entries, testkit.File("wanted", testkit.Noise(42, targetSize)))
		}
		layers = append(layers, testkit.Encode(t, f, entries...))
		size += layers[n].Desc.Size
	}
	return layers, size
}

func TestOneSmallFile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		form testkit.Form
		mb   int
	}{
		{testkit.Stargz, 105},
		{testkit.StargzMin, 30},
		{testkit.StargzLegacy, 30},
		{testkit.ZstdChunkedEarly, 30},
		{testkit.ZstdChunked, 30},
	} {
		t.Run(string(tc.form), func(t *testing.T) {
			layers, size := image(t, tc.form, tc.mb)
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "lazy", "one", layers...)
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.SetLink(testkit.Link{Delay: linkDelay})
			p := testkit.NewPeel(t)
			root := p.Mount(proxy.Ref("lazy", "one"))
			got, err := os.ReadFile(filepath.Join(root, "wanted"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, testkit.Noise(42, targetSize)) {
				t.Error("the file's content is wrong")
			}
			// Nobody waits for the answer whether there is a profile.
			log := slices.DeleteFunc(proxy.Log(), func(r testkit.Request) bool {
				return r.Path == "/v2/" || strings.Contains(r.Path, "/referrers/") || strings.Contains(r.Path, "/manifests/sha256-")
			})
			const rounds = 3 // manifest; config and indexes; data
			most, bytesMost := 2*len(layers)+4, size*3/100
			t.Logf("%d rounds, %d requests, %d of %d bytes", testkit.Rounds(log), len(log), testkit.Bytes(log), size)
			if n := testkit.Rounds(log); n > rounds {
				t.Errorf("%d sequential rounds, at most %d", n, rounds)
			}
			if len(log) > most {
				t.Errorf("%d requests, at most %d", len(log), most)
			}
			if n := testkit.Bytes(log); n > bytesMost {
				t.Errorf("%d bytes, at most %d (3 %% of %d)", n, bytesMost, size)
			}
			if t.Failed() {
				for _, r := range log {
					t.Logf("%s %s %s: %d, %d bytes, %v after the first", r.Method, r.Path, r.Range, r.Status, r.Bytes, r.Start.Sub(log[0].Start))
				}
			}
			status := p.PS()[0]
			if status.Requests < 1 || status.BytesFetched < targetSize || status.BytesPresent < targetSize {
				t.Errorf("peel ps counts %+v", status)
			}
		})
	}
}

// TestManyReaders: 200 processes want the same cold file at the same time.
func TestManyReaders(t *testing.T) {
	t.Parallel()
	const readers, size = 200, 3_000_000
	for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked} {
		t.Run(string(form), func(t *testing.T) {
			content := testkit.Noise(7, size)
			reg := testkit.NewRegistry(t)
			l := testkit.Encode(t, form, testkit.File("big", content), testkit.File("other", testkit.Noise(8, size)))
			reg.Publish(t, "lazy", "many", l)
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			root := p.Mount(proxy.Ref("lazy", "many"))
			proxy.Log()
			proxy.SetLink(testkit.Link{Delay: 300 * time.Millisecond})
			want, err := sha256sum(t, writeFile(t, content))
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range readers {
				all.Go(func() {
					if got, err := sha256sum(t, filepath.Join(root, "big")); err != nil || got != want {
						t.Errorf("a reader got %s (%v), want %s", got, err, want)
					}
				})
			}
			all.Wait()
			log := proxy.Log()
			twice(t, log)
			if n := testkit.Bytes(log); n > size*11/10+readAhead {
				t.Errorf("%d bytes fetched for a file of %d", n, size)
			}
		})
	}
}

func sha256sum(t *testing.T, name string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sha256sum", name).Output()
	sum, _, _ := strings.Cut(string(out), " ")
	return sum, err
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// twice complains of bytes that were fetched more than once, but for what is
// cheaper than to ask around it.
func twice(t *testing.T, log []testkit.Request) {
	t.Helper()
	type span struct{ first, last int64 }
	seen := map[string][]span{}
	for _, r := range log {
		var s span
		if _, err := fmt.Sscanf(r.Range, "bytes=%d-%d", &s.first, &s.last); err != nil {
			t.Errorf("%s %s: range %q", r.Method, r.Path, r.Range)
			continue
		}
		for _, o := range seen[r.Path] {
			if min(s.last, o.last)-max(s.first, o.first) >= 128<<10 {
				t.Errorf("bytes %d-%d fetched after %d-%d", s.first, s.last, o.first, o.last)
			}
		}
		seen[r.Path] = append(seen[r.Path], s)
	}
	if len(seen) == 0 {
		t.Error("nothing was fetched")
	}
}

// TestNothingTwice: what is in the cache is not asked for again, and a second
// mount with all that it needs asks for nothing.
func TestNothingTwice(t *testing.T) {
	t.Parallel()
	for _, form := range testkit.Forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			content := testkit.Noise(9, 400_000)
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "lazy", "again", testkit.Encode(t, form, testkit.File("a", content), testkit.File("b", testkit.Noise(10, 400_000))))
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			ref := proxy.Ref("lazy", "again")
			read := func() {
				t.Helper()
				root := p.Mount(ref)
				for range 2 {
					if got, err := os.ReadFile(filepath.Join(root, "a")); err != nil || !bytes.Equal(got, content) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				}
				p.Umount(root)
			}
			read()
			if first := proxy.Log(); form.Indexed() && testkit.Bytes(first) > 700_000 {
				t.Errorf("%d bytes fetched for half the image", testkit.Bytes(first))
			}
			read()
			if again := proxy.Log(); len(again) > 0 {
				t.Errorf("the second mount asked for %+v", again)
			}
		})
	}
}
