package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
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
		{"eStargz of small chunks", func(t *testing.T) ([]byte, ocispec.Descriptor) { return stargz(t, whole, estargz.WithChunkSize(1000)) }, FormatEstargz, false},
		{"eStargz of merged chunks", func(t *testing.T) ([]byte, ocispec.Descriptor) {
			return stargz(t, whole, estargz.WithChunkSize(1000), estargz.WithMinChunkSize(50000))
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
			if !ok || x.TOC() != want || x.Blob() != d.Digest || x.Info.Format != c.format || x.Info.Trust != Claimed || x.DiffID() != "" {
				t.Errorf("info %+v, TOC %s, want %s", x.Info, x.TOC(), want)
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
		{"annotation without footer", plainGzip, esgz, 1, "no eStargz footer"},
		{"tiny blob", []byte("tiny"), esgz, 1, "no eStargz footer"},
		{"empty blob", nil, esgz, 0, "no eStargz footer"},
		{"eStargz annotation, zstd layer", good, with(mediaZstd, esgz.Annotations), 0, "no annotation"},
		{"zstd:chunked annotation, gzip layer", good, with(mediaGzip, map[string]string{early.ManifestChecksumAnnotation: digest.FromBytes(nil).String()}), 0, "no annotation"},
		{"zstd:chunked without footer", plainGzip, with(mediaZstd, map[string]string{early.ManifestChecksumAnnotation: digest.FromBytes(nil).String()}), 1, "no zstd:chunked footer"},
		{"table in the footer's dreams", append(bytes.Clone(plainGzip), footer51(1<<40)...), esgz, 1, "the footer puts"},
		{"zstd footer of another type", append(make([]byte, 200), "\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00GnUlInUx"...),
			with(mediaZstd, map[string]string{early.ManifestChecksumAnnotation: digest.FromBytes(nil).String()}), 1, "of type 9"},
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

func TestReadIndexHostile(t *testing.T) {
	t.Parallel()
	sum := `"chunkDigest":"sha256:` + hexSum([]byte("x")) + `"`
	long := strings.Repeat("v", 100000)
	for _, c := range []struct {
		name    string
		entries []string
		want    string
	}{
		{"escaping name", []string{`{"name":"../../etc/passwd","type":"reg"}`}, "leaves the root"},
		{"escaping absolute name", []string{`{"name":"/../x","type":"dir"}`}, "leaves the root"},
		{"escaping hard link", []string{`{"name":"a","type":"hardlink","linkName":"../b"}`}, "leaves the root"},
		{"hard link cycle", []string{`{"name":"a","type":"hardlink","linkName":"b"}`, `{"name":"b","type":"hardlink","linkName":"a"}`}, "cycle"},
		{"symlink cycle", []string{`{"name":"a","type":"symlink","linkName":"b"}`, `{"name":"b","type":"symlink","linkName":"a"}`, `{"name":"a/x","type":"dir"}`}, "symlinks on the way"},
		{"unknown type", []string{`{"name":"a","type":"door"}`}, `type "door"`},
		{"negative size", []string{`{"name":"a","type":"reg","size":-5,"offset":5,` + sum + `}`}, "-5"},
		{"negative offset", []string{`{"name":"a","type":"reg","size":5,"offset":-5,` + sum + `}`}, "chunk at -5"},
		{"offset beyond the payload", []string{`{"name":"a","type":"reg","size":5,"offset":1000,` + sum + `}`}, "chunk at 1000"},
		{"negative inner offset", []string{`{"name":"a","type":"reg","size":5,"offset":5,"innerOffset":-1,` + sum + `}`}, "inner offset"},
		{"huge inner offset", []string{`{"name":"a","type":"reg","size":5,"offset":5,"innerOffset":9223372036854775807,` + sum + `}`}, "inner offset"},
		{"huge chunk", []string{`{"name":"a","type":"reg","size":1000000000000,"offset":5,` + sum + `}`}, "exceed the limit of 134217728"},
		{"negative chunk", []string{`{"name":"a","type":"reg","size":5,"chunkSize":-1,"offset":5,` + sum + `}`}, "chunk [0, +-1)"},
		{"chunk beyond its file", []string{`{"name":"a","type":"reg","size":5,"chunkSize":6,"offset":5,` + sum + `}`}, "chunk [0, +6) of 5"},
		{"chunks overlap in the file", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`, `{"type":"chunk","chunkOffset":4,"offset":9,` + sum + `}`}, "after 5"},
		{"chunks with a gap", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`, `{"type":"chunk","chunkOffset":6,"offset":9,` + sum + `}`}, "after 5"},
		{"chunks missing", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`}, "cover 5 bytes of 9"},
		{"chunk of nothing", []string{`{"type":"chunk","offset":5,"chunkSize":1,` + sum + `}`}, "without its file"},
		{"chunk of another file", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`, `{"type":"chunk","name":"b","chunkOffset":5,"offset":9,` + sum + `}`}, "without its file"},
		{"chunks overlap in the blob", []string{`{"name":"a","type":"reg","size":9,"offset":5,` + sum + `}`, `{"name":"b","type":"reg","size":8,"offset":5,` + sum + `}`}, "overlap"},
		{"chunks overlap when decompressed", []string{`{"name":"a","type":"reg","size":9,"offset":5,` + sum + `}`, `{"name":"b","type":"reg","size":9,"offset":5,"innerOffset":8,` + sum + `}`}, "overlap"},
		{"end before the beginning", []string{`{"name":"a","type":"reg","size":9,"offset":5,"endOffset":4,` + sum + `}`}, "ends at 4"},
		{"no chunk digest", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,"digest":"sha256:00"}`}, "no sha256"},
		{"odd chunk digest", []string{`{"name":"a","type":"reg","size":9,"offset":5,"chunkDigest":"sha256:` + strings.Repeat("z", 64) + `"}`}, "chunk digest"},
		{"sha512 chunk digest", []string{`{"name":"a","type":"reg","size":9,"offset":5,"chunkDigest":"sha512:00"}`}, "no sha256"},
		{"user number", []string{`{"name":"a","type":"dir","uid":-1}`}, "user number -1"},
		{"group number", []string{`{"name":"a","type":"dir","gid":4294967295}`}, "group number"},
		{"device", []string{`{"name":"a","type":"char","devMajor":-7}`}, "major device number -7"},
		{"time", []string{`{"name":"a","type":"dir","modtime":"yesterday"}`}, "time"},
		{"huge xattr", []string{`{"name":"a","type":"dir","xattrs":{"user.x":"` + long + `"}}`}, "75000 exceed the limit of 65536"},
		{"huge entry", []string{`{"name":"a","type":"dir","x":"` + strings.Repeat(long, 42) + `"}`}, "bytes of one entry"},
		{"not JSON", []string{`{"name":"a"`}, "invalid character"},
		{"number for a name", []string{`{"name":5}`}, "cannot unmarshal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			toc := tocText{entries: c.entries}
			p, d := stargzOf(t, make([]byte, 1000), toc.String(), footer51)
			refused(t, &blob{bytes: p}, d, ErrMalformed, c.want)
			p, d = zstdChunkedOf(t, make([]byte, 1000), toc.String(), zstdDialects()[0])
			refused(t, &blob{bytes: p}, d, ErrMalformed, c.want)
		})
	}
}

func refused(t *testing.T, src Source, d ocispec.Descriptor, want error, texts ...string) {
	t.Helper()
	x, err := ReadIndex(t.Context(), src, d)
	if !errors.Is(err, want) || x != nil {
		t.Fatalf("got %v", err)
	}
	for _, text := range append(texts, "layer "+d.Digest.String()) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func TestReadIndexPosition(t *testing.T) {
	t.Parallel()
	p, d := zstdChunkedOf(t, make([]byte, 1000), (&tocText{}).String(), zstdDialects()[0])
	for _, c := range []struct{ at, want string }{
		{"", ""},
		{"1:2:3", "is no position"},
		{"-1:2:3:1", "is no position"},
		{"1008:x:3:1", "is no position"},
		{"1008:99999999999:3:1", "of a blob of"},
		{"9223372036854775807:9223372036854775807:3:1", "of a blob of"},
		{"0:10:3:1", "of a blob of"},
		{"1008:0:3:1", "of a blob of"},
		{"1008:20:3:2", "of type 2"},
		{"1008:20:999999999999:1", "exceed the limit"},
	} {
		t.Run(c.at, func(t *testing.T) {
			t.Parallel()
			bad := d
			bad.Annotations = map[string]string{}
			for k, v := range d.Annotations {
				bad.Annotations[k] = v
			}
			bad.Annotations["io.github.containers.zstd-chunked.manifest-position"] = c.at
			if c.want == "" {
				if _, err := ReadIndex(t.Context(), &blob{bytes: p}, bad); err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, &blob{bytes: p}, bad, ErrMalformed, c.want, "manifest-position")
		})
	}
}

// TestReadIndexMillion: a million names are refused before they fill the memory.
func TestReadIndexMillion(t *testing.T) {
	t.Parallel()
	b := newTOC(1 << 40)
	n := 0
	entries := readerFunc(func(p []byte) (int, error) {
		n++
		if n == 1 {
			return copy(p, `{"entries":[{"name":"first","type":"dir"}`), nil
		}
		return copy(p, fmt.Sprintf(",{\"name\":\"%d\",\"type\":\"fifo\"}", n)), nil
	})
	b.b.entries = maxEntries - 1000
	err := b.read(entries)
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "entries of the layer: 1000001 exceed the limit of 1000000") {
		t.Errorf("got %v", err)
	}
}

func TestReadIndexVerifies(t *testing.T) {
	t.Parallel()
	toc := (&tocText{entries: []string{`{"name":"a","type":"dir"}`, `{"name":"b","type":"fifo"}`}}).String()
	other := strings.Replace(toc, "fifo", "dir", 1)
	broken := strings.Replace(toc, "fifo", "what", 1)
	z := zstdDialects()[1]
	for _, c := range []struct {
		name string
		make func(toc string) ([]byte, ocispec.Descriptor)
	}{
		{"eStargz", func(toc string) ([]byte, ocispec.Descriptor) { return stargzOf(t, make([]byte, 1000), toc, footer51) }},
		{"zstd:chunked", func(toc string) ([]byte, ocispec.Descriptor) { return zstdChunkedOf(t, make([]byte, 1000), toc, z) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, d := c.make(toc)
			want, _ := TOCDigest(d)
			for _, text := range []string{other, broken} {
				served, e := c.make(text)
				got, _ := TOCDigest(e)
				if z := "io.containers.zstd-chunked.manifest-position"; e.Annotations[z] != "" {
					d.Annotations[z] = e.Annotations[z]
				}
				refused(t, &blob{bytes: served}, d, ErrVerify, "table of contents", want.String(), got.String())
			}
			_, d = c.make(toc)
			end := bytes.LastIndex(p, p[len(p)-51:]) // of the table, at the latest
			for at := 1000 + 8; at < end; at++ {
				flipped := bytes.Clone(p)
				flipped[at] ^= 0x20
				_, err := ReadIndex(t.Context(), &blob{bytes: flipped}, d)
				// A table read right in spite of a flipped byte in a gzip header is right.
				if err != nil && !errors.Is(err, ErrVerify) {
					t.Errorf("byte %d flipped: %v", at, err)
				}
				if err == nil && c.name != "eStargz" {
					t.Errorf("byte %d flipped: no error", at)
				}
			}
		})
	}
}

func TestReadIndexSourceFails(t *testing.T) {
	t.Parallel()
	toc := (&tocText{entries: []string{`{"name":"a","type":"dir"}`}}).String()
	for name, make := range map[string]func() ([]byte, ocispec.Descriptor){
		"eStargz":      func() ([]byte, ocispec.Descriptor) { return stargzOf(t, noise(1000, 1), toc, footer51) },
		"zstd:chunked": func() ([]byte, ocispec.Descriptor) { return zstdChunkedOf(t, noise(1000, 1), toc, zstdDialects()[0]) },
	} {
		p, d := make()
		for after := range int64(60) {
			_, err := ReadIndex(t.Context(), &failing{blob: blob{bytes: p}, after: after, err: errNet}, d)
			if !errors.Is(err, errNet) || errors.Is(err, ErrVerify) || errors.Is(err, ErrMalformed) {
				t.Errorf("%s after %d: %v", name, after, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := ReadIndex(ctx, &stuck{blob{bytes: p}}, d); !errors.Is(err, context.Canceled) {
			t.Errorf("%s cancelled: %v", name, err)
		}
	}
}

func TestVersionOfTable(t *testing.T) {
	t.Parallel()
	p, d := stargzOf(t, make([]byte, 1000), `{"entries":[],"version":2}`, footer51)
	if _, err := ReadIndex(t.Context(), &blob{bytes: p}, d); !errors.Is(err, ErrPlain) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

func TestDecodeSpanVerifies(t *testing.T) {
	t.Parallel()
	p, d := stargz(t, tarball(t), estargz.WithChunkSize(100000))
	x, err := ReadIndex(t.Context(), &blob{bytes: p}, d)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range x.Spans {
		dst := make([]byte, s.Len)
		bad := bytes.Clone(p[s.Off:][:s.CLen])
		bad[len(bad)/3] ^= 4
		want := sha256Digest(x.Chunks[s.Chunks.First].SHA256).String()
		if err := x.decodeSpan(i, bytes.NewReader(bad), dst); err != nil && (!errors.Is(err, ErrVerify) ||
			!strings.Contains(err.Error(), fmt.Sprintf("span %d:", i)) || !strings.Contains(err.Error(), want)) {
			t.Errorf("span %d flipped: %v", i, err)
		} else if err == nil && !bytes.Equal(dst, addresses(t, x, &blob{bytes: p})[s.Addr:][:s.Len]) {
			t.Errorf("span %d flipped: other bytes and no error", i)
		}
		if err := x.decodeSpan(i, bytes.NewReader(bad[:9]), dst); err == nil || errors.Is(err, ErrVerify) {
			t.Errorf("span %d short: %v", i, err)
		}
		if err := x.decodeSpan(i, io.MultiReader(bytes.NewReader(bad[:2]), &failure{errNet}), dst); !errors.Is(err, errNet) {
			t.Errorf("span %d, source failed: %v", i, err)
		}
	}
}

// FuzzTOC: any table gives an error or an index that can be walked.
func FuzzTOC(f *testing.F) {
	sum := hexSum([]byte("x"))
	f.Add([]byte(`{"version":1,"entries":[{"name":"a/","type":"dir","mode":493},{"name":"a/b","type":"reg","size":9,"chunkSize":5,"offset":5,"chunkDigest":"sha256:` + sum +
		`"},{"type":"chunk","chunkOffset":5,"offset":9,"chunkDigest":"sha256:` + sum + `"},{"name":"c","type":"hardlink","linkName":"a/b"}]}`))
	f.Add([]byte(`{"entries":[{"name":"z","type":"reg","size":9,"offset":5,"chunkType":"zeros"},{"name":"a","type":"symlink","linkName":"b"},{"name":"a/.wh.x","type":"reg"}]}`))
	f.Add([]byte(`{"entries":[{"name":"z","type":"reg","size":9,"offset":5,"innerOffset":3,"digest":"sha256:` + sum + `","xattrs":{"user.a":"MQ=="}},{"name":"y","type":"reg","size":9,"offset":5,"innerOffset":12,"digest":"sha256:` + sum + `"}]}`))
	f.Add([]byte(`{"entries":[{"name":"n","type":"char","devMajor":1,"uid":5,"modtime":"2023-11-14T22:13:20.5Z"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newTOC(1000)
		b.landmarks = len(text)%2 == 0
		if b.read(bytes.NewReader(text)) != nil {
			return
		}
		x, err := b.index(InfoInput{BlobSize: 1000, Format: FormatEstargz, Trust: Claimed})
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if _, err := Decode(x.Encode()); err != nil {
			t.Fatal(err)
		}
		walkTables(t, x)
	})
}

func BenchmarkTOC(b *testing.B) {
	var toc tocText
	for i := range 70000 {
		e, err := json.Marshal(&estargz.TOCEntry{
			Name: fmt.Sprintf("usr/lib/python3/dist-packages/package%d/module%d.py", i/50, i), Type: "reg", Size: 1000, Mode: 0o644,
			ModTime3339: "2023-11-14T22:13:20Z", Offset: int64(i)*2000 + 1, Digest: "sha256:" + hexSum(fmt.Append(nil, i)), ChunkDigest: "sha256:" + hexSum(fmt.Append(nil, i)),
		})
		if err != nil {
			b.Fatal(err)
		}
		toc.add(string(e))
	}
	text := []byte(toc.String())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		t := newTOC(1 << 40)
		if err := t.read(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
		if _, err := t.index(InfoInput{BlobSize: 1 << 40, Format: FormatEstargz, Trust: Claimed}); err != nil {
			b.Fatal(err)
		}
	}
}
