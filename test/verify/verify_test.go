//go:build linux

package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// TestFlippedByte spoils one byte of a file in the blob.
func TestFlippedByte(t *testing.T) {
	t.Parallel()
	for _, form := range testkit.Forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form)
			x.spoil(x.inVictim(t))
			if form.Indexed() {
				x.readFails(t, spoiltDigests)
			} else {
				x.mountFails(t)
			}
			x.works(t)
		})
	}
}

// TestFlippedByteOfHeader spoils a byte that does not change what the layer
// unpacks to: the time in a gzip header.
func TestFlippedByteOfHeader(t *testing.T) {
	t.Parallel()
	const mtime = 5
	x := prepare(t, testkit.Gzip)
	x.spoil(mtime)
	x.mountFails(t)
	x.works(t)
}

// TestOtherContent serves another image's blob, right in every checksum that
// compressed data carries within itself, but for the table of contents.
func TestOtherContent(t *testing.T) {
	t.Parallel()
	changed := bytes.Clone(victim)
	changed[len(changed)/2] ^= 1
	for _, form := range testkit.Forms() {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form)
			twin := testkit.Encode(t, form, testkit.File("other", other), testkit.File("victim", changed))
			if !form.Indexed() {
				if twin.Desc.Size != x.layer.Desc.Size {
					t.Fatalf("the other blob has %d bytes, the layer's %d", twin.Desc.Size, x.layer.Desc.Size)
				}
				x.serve(twin.Blob)
				x.mountFails(t)
				x.works(t)
				return
			}
			off, _ := x.toc(t)
			if twinOff, _ := (fixture{form: form, layer: twin}).toc(t); twinOff != off {
				t.Fatalf("the other blob's data has %d bytes, the layer's %d", twinOff, off)
			}
			x.serve(append(bytes.Clone(twin.Blob[:off]), x.layer.Blob[off:]...))
			x.readFails(t, otherDigests)
			x.works(t)
		})
	}
}

// How many digests an error names: the layer's and the one expected, and where
// the bytes unpack at all, the one found.
const (
	spoiltDigests = 2
	otherDigests  = 3
)

// readFails mounts the image, as its table of contents is right, and reads the
// file that is not.
func (x fixture) readFails(t *testing.T, n int) {
	t.Helper()
	root := x.p.Mount(x.ref)
	f, err := os.Open(filepath.Join(root, "victim"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("reading a spoilt file: %v, want EIO", err)
	}
	if !bytes.HasPrefix(victim, got) {
		t.Errorf("%d bytes got through that are not the file's", len(got))
	}
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, int64(len(victim)/2)); err == nil && one[0] != victim[len(victim)/2] {
		t.Errorf("the spoilt byte got through")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	status := x.p.PS()[0]
	names(t, status.LastError, x.layer.Desc.Digest.String(), "span")
	log := x.p.Logs()
	names(t, log, x.layer.Desc.Digest.String(), "span")
	digests(t, log, n)
	if got, err := os.ReadFile(filepath.Join(root, "other")); err == nil && !bytes.Equal(got, other) {
		t.Error("wrong bytes of the other file got through")
	}
	x.p.Umount(root)

	r := x.p.Run("cat", x.ref+":/victim")
	if r.Code != testkit.Unverified || !bytes.HasPrefix(victim, []byte(r.Stdout)) {
		t.Errorf("cat: exit code %d, %d bytes\n%s", r.Code, len(r.Stdout), r.Stderr)
	}
	names(t, r.Stderr, x.layer.Desc.Digest.String(), "span")
	digests(t, r.Stderr, n)
}

// mountFails is for what the mount itself finds out.
func (x fixture) mountFails(t *testing.T) {
	t.Helper()
	r := x.p.Run("mount", x.ref, x.p.Dir())
	if r.Code != testkit.Unverified {
		t.Errorf("%s: exit code %d, want %d\n%s", x.form, r.Code, testkit.Unverified, r.Stderr)
	}
	names(t, r.Stderr, x.layer.Desc.Digest.String())
	digests(t, r.Stderr, 2)
	x.p.CheckLeftovers()
}

// TestFlippedByteOfTOC spoils the table of contents.
func TestFlippedByteOfTOC(t *testing.T) {
	t.Parallel()
	for _, form := range testkit.Forms() {
		if !form.Indexed() {
			continue
		}
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form)
			off, n := x.toc(t)
			x.spoil(off + n/2)
			x.mountFails(t)
			x.works(t)
		})
	}
}

// TestOtherTOC serves a table of contents that is right in all but its digest:
// another length stands for one of the files.
func TestOtherTOC(t *testing.T) {
	t.Parallel()
	for _, form := range []testkit.Form{testkit.Stargz, testkit.StargzLegacy, testkit.ZstdChunkedEarly, testkit.ZstdChunked} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form)
			off, n := x.toc(t)
			old := x.layer.Blob[off : off+n]
			var changed []byte
			if form == testkit.Stargz || form == testkit.StargzLegacy {
				changed = otherGzipTOC(t, old)
			} else {
				changed = otherZstdTOC(t, old)
			}
			blob := bytes.Clone(x.layer.Blob)
			copy(blob[off:], changed)
			x.serve(blob)
			x.mountFails(t)
			x.works(t)
		})
	}
}

func lie(t *testing.T, toc []byte) []byte {
	t.Helper()
	out := bytes.Replace(toc, []byte("victim"), []byte("vermin"), 1)
	if bytes.Equal(out, toc) {
		t.Fatalf("table of contents without the file:\n%.300s", toc)
	}
	return out
}

// otherGzipTOC packs the changed table into as many bytes as the old one had.
func otherGzipTOC(t *testing.T, old []byte) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(zr)
	h, err := tr.Next()
	if err != nil {
		t.Fatal(err)
	}
	toc, err := io.ReadAll(tr)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := testkit.Tar(testkit.File(h.Name, lie(t, toc)))
	if err != nil {
		t.Fatal(err)
	}
	pack := func(padding int) []byte {
		var b bytes.Buffer
		zw, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		zw.Extra = make([]byte, padding)
		if _, err := zw.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	padding := len(old) - len(pack(0))
	if padding < 0 {
		t.Fatalf("the changed table is %d bytes too long", -padding)
	}
	return pack(padding)
}

func otherZstdTOC(t *testing.T, old []byte) []byte {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	toc, err := dec.DecodeAll(old, nil)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	packed := enc.EncodeAll(lie(t, toc), nil)
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	const header = 8
	if gap := len(old) - len(packed); gap >= header {
		return append(packed, skippable(gap)...)
	} else if gap < 0 {
		t.Fatalf("the changed table is %d bytes too long", -gap)
	}
	return packed
}

// TestOtherDocuments serves a manifest or a configuration that is not the one
// that was named.
func TestOtherDocuments(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.Stargz)
	foreign := prepare(t, testkit.Stargz)
	whole, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+foreign.proxy.Host()+"/v2/very/fy/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	whole.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	var transport http.Transport
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(whole)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || len(manifest) == 0 {
		t.Fatalf("manifest: %d bytes, %v", len(manifest), err)
	}
	manifest = append(manifest, '\n') // JSON still, and another digest
	got := digest.FromBytes(manifest)
	mediaType := http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}}
	claimed := mediaType.Clone()
	claimed.Set("Docker-Content-Digest", x.desc.Digest.String())
	byDigest := x.proxy.Host() + "/very/fy@" + x.desc.Digest.String()

	for _, tc := range []struct {
		name, ref string
		fault     testkit.Fault
		digests   []string
	}{
		{"manifest for a digest", byDigest, testkit.Fault{Path: "/manifests/", Do: testkit.Serve(manifest, mediaType)}, []string{x.desc.Digest.String(), got.String()}},
		{"manifest for a digest, the header lies", byDigest, testkit.Fault{Path: "/manifests/", Do: testkit.Serve(manifest, claimed)}, []string{x.desc.Digest.String(), got.String()}},
		{"manifest for a tag, the header says otherwise", x.ref, testkit.Fault{Path: "/manifests/", Do: testkit.Serve(manifest, claimed)}, []string{x.desc.Digest.String(), got.String()}},
		{"configuration", x.ref, testkit.Fault{Path: "/blobs/", Do: notTheLayer(x.layer.Desc.Digest)}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x.proxy.Heal()
			x.proxy.Inject(tc.fault)
			r := x.p.Run("mount", tc.ref, x.p.Dir())
			if r.Code != testkit.Unverified {
				t.Errorf("exit code %d, want %d\n%s", r.Code, testkit.Unverified, r.Stderr)
			}
			names(t, r.Stderr, tc.digests...)
			digests(t, r.Stderr, 2)
			x.p.CheckLeftovers()
		})
	}
	x.works(t)
}

// notTheLayer changes a letter of every blob but one.
func notTheLayer(spared digest.Digest) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, spared.String()) {
				w = &changer{w}
			}
			next.ServeHTTP(w, r)
		})
	}
}

type changer struct{ http.ResponseWriter }

func (c *changer) Write(b []byte) (int, error) {
	return c.ResponseWriter.Write(bytes.Replace(b, []byte("amd64"), []byte("amd46"), 1))
}
