package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	early "github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stargz converts a tar to eStargz.
func stargz(t testing.TB, tar []byte, options ...estargz.Option) ([]byte, ocispec.Descriptor) {
	t.Helper()
	b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(tar), 0, int64(len(tar))), options...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return p, descriptor(p, mediaGzip, map[string]string{estargz.TOCJSONDigestAnnotation: b.TOCDigest().String()})
}

// stargzOf makes an eStargz blob of a payload and a table of contents.
func stargzOf(t testing.TB, payload []byte, toc string, footer func(off int) []byte) ([]byte, ocispec.Descriptor) {
	t.Helper()
	p := append(bytes.Clone(payload), gzipped(t, tarOf(t, estargz.TOCTarName, toc))...)
	p = append(p, footer(len(payload))...)
	return p, descriptor(p, mediaGzip, map[string]string{estargz.TOCJSONDigestAnnotation: digest.FromString(toc).String()})
}

func footer51(off int) []byte {
	extra := fmt.Appendf([]byte{'S', 'G', 22, 0}, "%016xSTARGZ", off)
	return estargz.CreateGzipFooter(extra)
}

func footer47(off int) []byte {
	return estargz.CreateGzipFooter(fmt.Appendf(nil, "%016xSTARGZ", off))
}

// frame wraps p in a zstd skippable frame.
func frame(p []byte) []byte {
	h := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(p)))
	return append(h, p...)
}

// zstdChunkedOf makes a zstd:chunked blob of a payload and a table of
// contents. With no prefix, the descriptor does not say where the table is.
func zstdChunkedOf(t testing.TB, payload []byte, toc string, z zstdDialect) ([]byte, ocispec.Descriptor) {
	t.Helper()
	packed := zstded(t, []byte(toc))
	p := append(bytes.Clone(payload), frame(packed)...)
	fields := []uint64{uint64(len(payload) + 8), uint64(len(packed)), uint64(len(toc)), 1}
	if z.footer == 64 {
		split := zstded(t, []byte("tar-split"))
		fields = append(fields, uint64(len(p)+8), uint64(len(split)), 9)
		p = append(p, frame(split)...)
	}
	var footer []byte
	for _, f := range fields {
		footer = binary.LittleEndian.AppendUint64(footer, f)
	}
	p = append(p, frame(append(footer, z.magic...))...)
	return p, descriptor(p, mediaZstd, map[string]string{
		z.prefix + "manifest-checksum": digest.FromBytes(packed).String(),
		z.prefix + "manifest-position": fmt.Sprintf("%d:%d:%d:1", len(payload)+8, len(packed), len(toc)),
	})
}

func TestReadIndex(t *testing.T) {
	t.Parallel()
	whole := tarball(t)
	zstdEarly := func(t *testing.T) ([]byte, ocispec.Descriptor) {
		metadata := map[string]string{}
		p, d := stargz(t, whole, estargz.WithCompression(&earlyCompression{Compressor: &early.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: metadata}}))
		d.MediaType = mediaZstd
		for k, v := range metadata {
			d.Annotations[k] = v
		}
		return p, d
	}
	for _, c := range []struct {
		name   string
		make   func(t *testing.T) ([]byte, ocispec.Descriptor)
		format FormatID
		merged bool
	}{
		{"eStargz", func(t *testing.T) ([]byte, ocispec.Descriptor) { return stargz(t, whole) }, FormatEstargz, false},
		{"eStargz of small chunks", func(t *testing.T) ([]byte, ocispec.Descriptor) { return stargz(t, whole, estargz.WithChunkSize(20000)) }, FormatEstargz, false},
		{"eStargz of merged chunks", func(t *testing.T) ([]byte, ocispec.Descriptor) {
			return stargz(t, whole, estargz.WithChunkSize(20000), estargz.WithMinChunkSize(100000))
		}, FormatEstargz, true},
		{"eStargz with a landmark", func(t *testing.T) ([]byte, ocispec.Descriptor) {
			return stargz(t, whole, estargz.WithPrioritizedFiles([]string{"d/text"}))
		}, FormatEstargz, false},
		{"zstd:chunked, early", zstdEarly, FormatZstdChunked, false},
		{"zstd:chunked, early, by the footer", func(t *testing.T) ([]byte, ocispec.Descriptor) {
			p, d := zstdEarly(t)
			delete(d.Annotations, early.ManifestPositionAnnotation)
			return p, d
		}, FormatZstdChunked, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, d := c.make(t)
			src := &blob{bytes: p}
			x, err := ReadIndex(t.Context(), src, d)
			if err != nil {
				t.Fatal(err)
			}
			if n := src.requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
			want, ok := TOCDigest(d)
			if !ok || x.Claim() != want || x.Blob() != d.Digest || x.Info.Format != c.format || x.Info.Trust != Claimed || x.DiffID() != "" {
				t.Errorf("info %+v, TOC %s, want %s", x.Info, x.Claim(), want)
			}
			if merged := len(x.Chunks) > len(x.Spans); merged != c.merged {
				t.Errorf("%d chunks in %d spans", len(x.Chunks), len(x.Spans))
			}
			if list := strings.Join(listing(x), "\n"); strings.Contains(list, "landmark") || strings.Contains(list, "stargz") {
				t.Errorf("shows what the converter added:\n%s", list)
			}
			checkTarball(t, x, addresses(t, x, src))
			if _, err := Decode(x.Encode()); err != nil {
				t.Error(err)
			}
		})
	}
}

// earlyCompression is the early dialect, as estargz.Build wants it.
type earlyCompression struct {
	*early.Compressor
	early.Decompressor
}

// damaged is a blob of which the first answers have byte at flipped.
type damaged struct {
	blob
	at    int64
	times atomic.Int64
}

func (d *damaged) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	rc, err := d.blob.ReadRange(ctx, off, n)
	if err != nil || d.at < off || d.at >= off+n || d.times.Add(-1) < 0 {
		return rc, err
	}
	p := bytes.Clone(d.bytes[off:][:n])
	p[d.at-off] ^= 0xff
	return io.NopCloser(bytes.NewReader(p)), nil
}

// TestReadIndexDamaged: wrong bytes on the way neither fail an opening nor make
// a layer with a table of contents a plain one.
func TestReadIndexDamaged(t *testing.T) {
	t.Parallel()
	packed, d := stargz(t, tarball(t))
	for _, c := range []struct {
		name  string
		at    int64 // from the end
		times int64
	}{
		{"footer", 20, 1},
		{"table", 120, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src := &damaged{blob: blob{bytes: packed}, at: d.Size - c.at}
			src.times.Store(c.times)
			if _, err := ReadIndex(t.Context(), src, d); err != nil {
				t.Error(err)
			}
			if n := src.requests.Load(); n != c.times+1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestReadIndexPlain(t *testing.T) {
	t.Parallel()
	whole := tarball(t)
	good, esgz := stargz(t, whole)
	plainGzip := gzipped(t, whole)
	with := func(media string, annotations map[string]string) ocispec.Descriptor {
		return descriptor(good, media, annotations)
	}
	for _, c := range []struct {
		name     string
		blob     []byte
		d        ocispec.Descriptor
		requests int64
		want     string
	}{
		{"no annotation", good, with(mediaGzip, nil), 0, "no annotation"},
		{"digest that is none", good, with(mediaGzip, map[string]string{estargz.TOCJSONDigestAnnotation: "sha256:zz"}), 0, "that is none"},
		{"annotation without footer", plainGzip, esgz, 2, "no eStargz footer"},
		{"tiny blob", []byte("tiny"), esgz, 2, "no eStargz footer"},
		{"empty blob", nil, esgz, 0, "no eStargz footer"},
		{"eStargz annotation, zstd layer", good, with(mediaZstd, esgz.Annotations), 0, "no annotation"},
		{"zstd:chunked annotation, gzip layer", good, with(mediaGzip, map[string]string{early.ManifestChecksumAnnotation: digest.FromBytes(nil).String()}), 0, "no annotation"},
		{"zstd:chunked without footer", plainGzip, with(mediaZstd, map[string]string{early.ManifestChecksumAnnotation: digest.FromBytes(nil).String()}), 2, "no zstd:chunked footer"},
		{"table in the footer's dreams", append(bytes.Clone(plainGzip), footer51(1<<40)...), esgz, 2, "the footer puts"},
		{
			"zstd footer of another type", append(make([]byte, 200), "\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00GnUlInUx"...),
			with(mediaZstd, map[string]string{early.ManifestChecksumAnnotation: digest.FromBytes(nil).String()}), 2, "of type 9",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src := &blob{bytes: c.blob}
			_, err := ReadIndex(t.Context(), src, c.d)
			if !errors.Is(err, ErrPlain) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if n := src.requests.Load(); n != c.requests {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestReadIndexFarTable: a table longer than the first guess costs one more
// request, for what is missing of it only.
func TestReadIndexFarTable(t *testing.T) {
	t.Parallel()
	var toc tocText
	for i := range 3000 {
		toc.add(fmt.Sprintf(`{"name":"f%d","type":"symlink","linkName":%q}`, i, hexSum(fmt.Append(nil, i))))
	}
	for name, footer := range map[string]func(int) []byte{"51": footer51, "47": footer47} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, d := stargzOf(t, make([]byte, 1000), toc.String(), footer)
			src := &blob{bytes: p}
			x, err := ReadIndex(t.Context(), src, d)
			if err != nil {
				t.Fatal(err)
			}
			if len(x.Inodes) != 3001 {
				t.Errorf("%d inodes", len(x.Inodes))
			}
			if n, sent := src.requests.Load(), src.sent.Load(); n != 2 || sent != int64(len(p)-1000) {
				t.Errorf("%d bytes in %d requests", sent, n)
			}
		})
	}
}

// TestReadIndexDialects reads tables of both dialects of zstd:chunked that are
// made here, by annotation and by footer.
func TestReadIndexDialects(t *testing.T) {
	t.Parallel()
	a, b := noise(3000, 4), noise(2000, 5)
	one, two, zeros := zstded(t, a), zstded(t, b), zstded(t, make([]byte, 500))
	payload := bytes.Join([][]byte{{0, 0, 0}, one, zeros, two, two}, nil)
	at := []int{3, 3 + len(one), 3 + len(one) + len(zeros), 3 + len(one) + len(zeros) + len(two), len(payload)}
	var toc tocText
	toc.add(fmt.Sprintf(`{"name":"f","type":"reg","size":5500,"offset":%d,"endOffset":%d,"chunkSize":3000,"chunkDigest":"sha256:%s","modtime":"1969-12-31T23:59:58.25Z"}`, at[0], at[3], hexSum(a)))
	toc.add(fmt.Sprintf(`{"name":"f","type":"chunk","offset":%d,"chunkOffset":3000,"chunkSize":500,"chunkType":"zeros"}`, at[1]))
	toc.add(fmt.Sprintf(`{"name":"f","type":"chunk","offset":%d,"chunkOffset":3500,"chunkSize":2000,"chunkDigest":"sha256:%s"}`, at[2], hexSum(b)))
	toc.add(fmt.Sprintf(`{"name":"g","type":"reg","size":2000,"offset":%d,"endOffset":%d,"digest":"sha256:%s"}`, at[3], at[4], hexSum(b)))
	toc.add(fmt.Sprintf(`{"name":"hole","type":"reg","size":500,"offset":%d,"endOffset":%d,"chunkType":"zeros","digest":"sha256:%s"}`, at[1], at[2], hexSum(make([]byte, 500))))
	toc.add(fmt.Sprintf(`{"name":".no.prefetch.landmark","type":"reg","size":2000,"offset":%d,"digest":"sha256:%s"}`, at[2], hexSum(b)))
	for _, z := range zstdDialects() {
		for _, footer := range []string{"annotation", "footer"} {
			t.Run(fmt.Sprint(z.footer, " by ", footer), func(t *testing.T) {
				t.Parallel()
				p, d := zstdChunkedOf(t, payload, toc.String(), z)
				if footer == "footer" {
					delete(d.Annotations, z.prefix+"manifest-position")
				}
				src := &blob{bytes: p}
				x, err := ReadIndex(t.Context(), src, d)
				if err != nil {
					t.Fatal(err)
				}
				if n := src.requests.Load(); n != 1 {
					t.Errorf("%d requests", n)
				}
				space, have := addresses(t, x, src), files(x)
				if f := have["/f"]; !bytes.Equal(content(x, f, space), bytes.Join([][]byte{a, make([]byte, 500), b}, nil)) || f.Extents.Count != 2 || f.MtimeSec != -2 || f.MtimeNsec != 250e6 {
					t.Errorf("f: %+v", f)
				}
				if g := have["/g"]; !bytes.Equal(content(x, g, space), b) {
					t.Errorf("g: %+v", g)
				}
				if h := have["/hole"]; !bytes.Equal(content(x, h, space), make([]byte, 500)) || h.Size != 500 {
					t.Errorf("hole: %+v", h)
				}
				if _, shown := have["/.no.prefetch.landmark"]; shown == z.landmarks {
					t.Errorf("landmark shown: %v", shown)
				}
				if s := x.Spans[1]; s.Off != int64(at[2]) || s.CLen != int64(len(two)) {
					t.Errorf("span %+v", s)
				}
			})
		}
	}
}

// tocText writes a table of contents.
type tocText struct{ entries []string }

func (t *tocText) add(entry string) { t.entries = append(t.entries, entry) }

func (t *tocText) String() string {
	return `{"version":1,"entries":[` + strings.Join(t.entries, ",\n") + `],"tarSplitDigest":"sha256:00"}`
}
