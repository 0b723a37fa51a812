package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	early "github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer/inflate"
	"github.com/peelfs/peel/layer/ztoc"
)

// detailed is a tar in which everything can be wrong.
func detailed(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	at := time.Unix(1_700_000_000, 600_000_000)
	add := func(h *tar.Header, data []byte) {
		h.Size, h.Format, h.ModTime = int64(len(data)), tar.FormatPAX, at
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(&tar.Header{Name: "d/a", Mode: 0o4644, Uid: 1, Gid: 2, PAXRecords: map[string]string{
		"SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.c": "3",
	}}, []byte("some bytes"))
	add(&tar.Header{Name: "d/big", Mode: 0o600}, noise(1<<20+5, 1))
	add(&tar.Header{Name: "d/twin", Mode: 0o600}, noise(1<<20+5, 1))
	add(&tar.Header{Name: "d/zeros", Mode: 0o600}, make([]byte, 700_000))
	add(&tar.Header{Name: "d/text", Mode: 0o600}, text(900_000))
	add(&tar.Header{Name: "e/.wh..wh..opq"}, nil)
	add(&tar.Header{Name: "e/.wh.gone"}, nil)
	add(&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d/a"}, nil)
	add(&tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/a"}, nil)
	add(&tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil)
	add(&tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o666}, nil)
	add(&tar.Header{Name: "empty", Mode: 0o600}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// text returns n bytes with many short repetitions.
func text(n int) []byte {
	p := noise(n, 3)
	for i := range p {
		p[i] = "peel"[p[i]>>6]
	}
	return p
}

// TestProve: whatever claims the truth is proved.
func TestProve(t *testing.T) {
	t.Parallel()
	raw := detailed(t)
	toc := func(t *testing.T, p []byte, d ocispec.Descriptor) *Index {
		x, err := ReadIndex(t.Context(), &blob{bytes: p}, d)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	soci := func(t *testing.T, p []byte) *Index {
		x, err := FromZTOC(encoded(t, zTOC(t, p, 300_000)), descriptor(p, mediaTar, nil), someClaim())
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	tests := map[string]func(t *testing.T) ([]byte, *Index){
		"eStargz": func(t *testing.T) ([]byte, *Index) {
			p, d := stargz(t, raw)
			return p, toc(t, p, d)
		},
		"eStargz with a landmark and merged chunks": func(t *testing.T) ([]byte, *Index) {
			p, d := stargz(t, raw, estargz.WithPrioritizedFiles([]string{"d/a"}), estargz.WithChunkSize(20_000), estargz.WithMinChunkSize(100_000))
			return p, toc(t, p, d)
		},
		"zstd:chunked": func(t *testing.T) ([]byte, *Index) {
			notes := map[string]string{}
			p, d := stargz(t, raw, estargz.WithCompression(&earlyCompression{Compressor: &early.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: notes}}))
			d.MediaType, d.Annotations = mediaZstd, notes
			return p, toc(t, p, d)
		},
		"SOCI": func(t *testing.T) ([]byte, *Index) {
			p := gzipped(t, raw)
			return p, soci(t, p)
		},
		"SOCI of a tar": func(t *testing.T) ([]byte, *Index) { return raw, soci(t, raw) },
		"a layer that is resident": func(t *testing.T) ([]byte, *Index) {
			p := zstded(t, raw)
			x, _ := streamed(t, p)
			reside(x)
			return p, x
		},
	}
	for name, p := range compressedForms(t, raw) {
		tests["peel, "+name] = func(t *testing.T) ([]byte, *Index) {
			x, _ := streamed(t, p)
			x, err := Unpack(x.Pack(), descriptor(p, mediaTar, nil), someClaim())
			if err != nil {
				t.Fatal(err)
			}
			return p, x
		}
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, claimed := make(t)
			real, tar := streamed(t, p)
			src := &blob{bytes: p}
			if err := Prove(t.Context(), claimed, src, real, bytes.NewReader(tar)); err != nil {
				t.Error(err)
			}
			if n := src.requests.Load(); n > 1 || src.sent.Load() > src.Size() {
				t.Errorf("%d bytes of %d in %d requests", src.sent.Load(), src.Size(), n)
			}
		})
	}
}

// collector keeps the headers that are streamed.
type collector struct{ headers []*Header }

func (c *collector) Header(h *Header) { c.headers = append(c.headers, h) }
func (c *collector) Staged(int64)     {}

func (c *collector) clone() *collector {
	var other collector
	for _, h := range c.headers {
		h := *h
		h.Xattrs = maps.Clone(h.Xattrs)
		other.headers = append(other.headers, &h)
	}
	return &other
}

// at returns the header of a name.
func (c *collector) at(name string) *Header {
	return c.headers[slices.IndexFunc(c.headers, func(h *Header) bool { return h.Name == name })]
}

func (c *collector) drop(name string) {
	c.headers = slices.DeleteFunc(c.headers, func(h *Header) bool { return h.Name == name })
}

// TestProveNamesLies: each lie about a path is found and told.
func TestProveNamesLies(t *testing.T) {
	t.Parallel()
	p := gzipped(t, detailed(t))
	st, truth := new(stage), new(collector)
	real, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaTar, nil), "", StreamOptions{Stage: st, Watch: truth})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		lie  func(*collector)
		want string
	}{
		{"nothing", func(*collector) {}, ""},
		{"a file more", func(c *collector) { c.headers = append(c.headers, file("d/b")) }, `"d/b": entry: the index claims one of its own, the layer has none`},
		{"a file less", func(c *collector) { c.drop("d/big") }, `"d/big": entry: the index claims none, the layer has one of its own`},
		{"a file less at the end", func(c *collector) { c.drop("p") }, `"p": entry: the index claims none`},
		{"an empty directory", func(c *collector) {
			c.headers = slices.DeleteFunc(c.headers, func(h *Header) bool { return h.Name[0] == 'd' || h.Name == "h" })
		}, `"d": entry: the index claims none`},
		{"a landmark's name", func(c *collector) { c.headers = append(c.headers, file(estargz.PrefetchLandmark)) }, `".prefetch.landmark": entry`},
		{"type", func(c *collector) { c.at("p").Mode = typeBlock | 0o666 }, `"p": type: the index claims a block device, the layer has a FIFO`},
		{"mode", func(c *collector) { c.at("d/a").Mode &^= 0o4000 }, `"d/a": mode: the index claims 0644, the layer has 04644`},
		{"owner", func(c *collector) { c.at("d/a").GID = 0 }, `"d/a": owner: the index claims 1:0, the layer has 1:2`},
		{"size", func(c *collector) { c.at("d/big").Size-- }, `"d/big": size: the index claims 1048580, the layer has 1048581`},
		{"time", func(c *collector) { c.at("l").MtimeSec++ }, `"l": modification time: the index claims 2023-11-14T22:13:21.6Z, the layer has 2023-11-14T22:13:20.6Z`},
		{"whole seconds", func(c *collector) { c.at("l").MtimeNsec = 0 }, `"l": modification time`},
		{"device", func(c *collector) { c.at("c").RdevMinor = 5 }, `"c": device: the index claims 1:5, the layer has 1:3`},
		{"symlink", func(c *collector) { c.at("l").Link = "d/b" }, `"l": target of the symlink: the index claims "d/b", the layer has "d/a"`},
		{"no hard link", func(c *collector) { h := *c.at("d/a"); h.Name = "h"; *c.at("h") = h }, `"h": hard link: the index claims a file of its own, the layer has another name of "d/a"`},
		{"a hard link", func(c *collector) { *c.at("d/twin") = *hardlink("d/twin", "d/big") }, `"d/twin": hard link: the index claims another name of "d/big", the layer has a file of its own`},
		{"a hard link to below", func(c *collector) { c.at("h").Link = "elsewhere" }, `"h": entry: the index claims a hard link to a lower layer`},
		{"xattr more", func(c *collector) { c.at("d/a").Xattrs["user.b"] = "2" }, `"d/a": xattr "user.b": the index claims "2", the layer has none`},
		{"xattr at the end", func(c *collector) { c.at("d/a").Xattrs["user.d"] = "4" }, `"d/a": xattr "user.d": the index claims "4", the layer has none`},
		{"xattr less", func(c *collector) { delete(c.at("d/a").Xattrs, "user.a") }, `"d/a": xattr "user.a": the index claims none, the layer has "1"`},
		{"xattr", func(c *collector) { c.at("d/a").Xattrs["user.c"] = "4" }, `"d/a": xattr "user.c": the index claims "4", the layer has "3"`},
		{"no whiteout", func(c *collector) { c.drop("e/.wh.gone") }, `"e/gone": entry: the index claims none, the layer has a whiteout`},
		{"not opaque", func(c *collector) { c.drop("e/.wh..wh..opq") }, `"e": directory: the index claims one without an entry, the layer has one without an entry, opaque`},
		{"a directory's entry", func(c *collector) { c.headers = append(c.headers, &Header{Name: "e", Mode: typeDir | 0o755}) }, `"e": directory: the index claims one with an entry, opaque, the layer has one without an entry, opaque`},
		{"another place", func(c *collector) { c.at("d/big").Addr += 512 }, `"d/big": byte 0: the index claims`},
		{"a place that differs late", func(c *collector) {
			h := c.at("d/big")
			h.Extents = []Extent{{Addr: h.Addr, Len: 1 << 20}, {Off: 1 << 20, Addr: 0, Len: 5}}
		}, `"d/big": byte 1048576: the index claims`},
		{"a place that is late", func(c *collector) { c.at("d/zeros").Addr += 512 }, `"d/zeros": byte 699904: the index claims`},
		{"the twin's place", func(c *collector) { c.at("d/twin").Addr = c.at("d/big").Addr }, ""},
		{"a hole of zeros", func(c *collector) { c.at("d/zeros").Extents = []Extent{} }, ""},
		{"a hole", func(c *collector) {
			h := c.at("d/big")
			h.Extents = []Extent{{Addr: h.Addr, Len: 1 << 19}, {Off: 1<<19 + 1, Addr: h.Addr + 1<<19 + 1, Len: 1<<19 + 4}}
		}, `"d/big": byte 524288: the index claims a hole`},
		{"a hole at the end", func(c *collector) { h := c.at("d/a"); h.Extents = []Extent{{Addr: h.Addr, Len: 9}} }, `"d/a": byte 9: the index claims a hole, the layer has 115`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			told := truth.clone()
			c.lie(told)
			b := NewBuilder()
			for _, h := range told.headers {
				if err := b.Add(h); err != nil {
					t.Fatal(err)
				}
			}
			claimed, err := b.Index(real.input(), Cut{Spans: real.Spans, Chunks: real.Chunks, Checkpoints: real.Checkpoints, Windows: real.Windows})
			if err != nil {
				t.Fatal(err)
			}
			wantLie(t, Prove(t.Context(), claimed, &blob{bytes: p}, real, st), c.want)
		})
	}
}

// TestProveAgainstHoles: a file of the layer that has holes may be claimed to
// have zeros there, and nothing else.
func TestProveAgainstHoles(t *testing.T) {
	t.Parallel()
	p := gzipped(t, detailed(t))
	claimed, tar := streamed(t, p)
	claimed.Files = nil
	claimed.sortDigests()
	for _, c := range []struct {
		name string
		keep int64 // bytes at the front that are no hole
		want string
	}{
		{"d/zeros", 100, ""},
		{"d/big", 1000, `"d/big": byte 1000: the index claims`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			real := copyIndex(t, claimed)
			for row := range real.Inodes {
				if in := &real.Inodes[row]; real.path(uint32(row), "") == c.name {
					in.Extents = flat.Range{First: uint32(len(real.Extents)), Count: 1}
					real.Extents = append(real.Extents, Extent{Addr: in.Addr, Len: c.keep})
				}
			}
			wantLie(t, Prove(t.Context(), claimed, &blob{bytes: p}, real, bytes.NewReader(tar)), c.want)
		})
	}
}

// ReadAt makes a stage the tar that it took.
func (s *stage) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.Bytes()).ReadAt(p, off)
}

// wantLie wants ErrVerify with words, or no error if there are none.
func wantLie(t *testing.T, err error, words string) {
	t.Helper()
	if words == "" && err != nil || words != "" && (!errors.Is(err, ErrVerify) || !strings.Contains(err.Error(), words)) {
		t.Errorf("got %v\nwant %s", err, words)
	}
}

// TestProveNamesWrongSpans: each lie about the blob is found and told.
func TestProveNamesWrongSpans(t *testing.T) {
	t.Parallel()
	p := gzipped(t, detailed(t))
	real, tar := streamed(t, p)
	soci, err := FromZTOC(encoded(t, zTOC(t, p, 300_000)), descriptor(p, mediaTar, nil), someClaim())
	if err != nil {
		t.Fatal(err)
	}
	resident := copyIndex(t, real)
	reside(resident)
	for _, c := range []struct {
		name string
		of   *Index
		lie  func(*Index)
		want string
	}{
		{"another layer", real, func(x *Index) { x.Info.BlobSize++ }, "layer: the index claims sha256"},
		{"another layer's digest", real, func(x *Index) { x.Pool[x.Info.Blob.Off+7] ^= 1 }, "layer: the index claims sha256"},
		{"a longer tar", real, func(x *Index) { x.Info.AddrSize++ }, "bytes of the tar"},
		{"a chunk's digest", real, func(x *Index) { x.Chunks[1].SHA256[5] ^= 1 }, "span 1: addresses"},
		{"a chunk's digest, resident", resident, func(x *Index) { x.Chunks[1].SHA256[5] ^= 1 }, "span 1: addresses"},
		{"a span's beginning", real, func(x *Index) { x.Spans[1].Off, x.Spans[1].CLen = x.Spans[1].Off+1, x.Spans[1].CLen-1 }, "span 1: "},
		{"a bit", real, func(x *Index) { x.Checkpoints[len(x.Spans)-1].Bit ^= 3 }, ": span "},
		{"a window", soci, func(x *Index) {
			i := len(x.Spans) - 2 // in d/text
			w := new(inflate.Packer).Pack(nil, bytes.Repeat([]byte("x"), inflate.WindowSize))
			x.Checkpoints[i].Window = flat.Range{First: uint32(len(x.Windows)), Count: uint32(len(w))}
			x.Windows = append(x.Windows, w...)
		}, "the index's window is not what lies before"},
		{"a digest of the blob", soci, func(x *Index) { x.Chunks[3].SHA256[5] ^= 1 }, "span 3: compressed bytes"},
		{"a span that is too long", real, func(x *Index) { x.Spans[1].CLen = maxCLen + 1 }, "exceed the limit"},
		{"a file's digest", real, func(x *Index) { x.Files[0].SHA256[0] ^= 1 }, "digest: the index claims sha256:"},
		{"a digest too many", real, func(x *Index) { x.Files[0].Inode = 1 }, "digest: the index claims sha256:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := copyIndex(t, c.of)
			c.lie(x)
			wantLie(t, Prove(t.Context(), x, &blob{bytes: p}, real, bytes.NewReader(tar)), c.want)
		})
	}
}

// TestProveFails: what keeps Prove from knowing is no lie.
func TestProveFails(t *testing.T) {
	t.Parallel()
	p := gzipped(t, detailed(t))
	real, tar := streamed(t, p)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		src  Source
		tar  []byte
		want error
	}{
		{"cancelled", cancelled, &blob{bytes: p}, tar, context.Canceled},
		{"blob", t.Context(), &failing{blob: blob{bytes: p}, err: errFull}, tar, errFull},
		{"tar", t.Context(), &blob{bytes: p}, tar[:2<<20], io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := Prove(c.ctx, real, c.src, real, bytes.NewReader(c.tar)); !errors.Is(err, c.want) || errors.Is(err, ErrVerify) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestVectorsProve: other tools' tables of contents are right, and our indexes
// of their plain layers.
func TestVectorsProve(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "shared", "vectors")
	if _, err := os.Stat(root); err != nil {
		t.Logf("no vectors here (%v)", err)
		return
	}
	var index ocispec.Index
	readJSON(t, filepath.Join(root, "tricky", "index.json"), &index)
	proved := 0
	for _, d := range index.Manifests {
		var m ocispec.Manifest
		readJSON(t, vector(root, d.Digest), &m)
		for _, l := range m.Layers {
			if l.MediaType == ztoc.MediaTypeTOC {
				continue
			}
			p, err := os.ReadFile(vector(root, l.Digest))
			if err != nil {
				t.Fatal(err)
			}
			real, tar := streamed(t, p)
			x, err := ReadIndex(t.Context(), &blob{bytes: p}, l)
			if errors.Is(err, ErrPlain) {
				x, err = Unpack(real.Pack(), descriptor(p, l.MediaType, nil), someClaim())
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := Prove(t.Context(), x, &blob{bytes: p}, real, bytes.NewReader(tar)); err != nil {
				t.Errorf("%s: %v", d.Annotations[ocispec.AnnotationRefName], err)
			}
			proved++
		}
	}
	if proved < 24 {
		t.Errorf("only %d layers", proved)
	}
}
