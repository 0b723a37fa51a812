package layer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer/ztoc"
)

// named returns p compressed by a tool that notes a name in the header.
func named(t testing.TB, p []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Name = "a name in the header"
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zTOC(t testing.TB, p []byte, spanSize int64) *ztoc.TOC {
	t.Helper()
	toc, err := ztoc.Build(t.Context(), bytes.NewReader(p), ztoc.BuildOptions{SpanSize: spanSize})
	if err != nil {
		t.Fatal(err)
	}
	return toc
}

func encoded(t testing.TB, toc *ztoc.TOC) []byte {
	t.Helper()
	data, err := toc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// streamed returns what a pass over a blob finds, and its tar.
func streamed(t testing.TB, p []byte) (*Index, []byte) {
	t.Helper()
	st := new(stage)
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaTar, nil), "", StreamOptions{Stage: st})
	if err != nil {
		t.Fatal(err)
	}
	return x, st.Bytes()
}

// someClaim is made by nobody in particular.
func someClaim() Claim { return Claim{Digest: digest.FromString("claim"), Origin: "a test"} }

func TestFromZTOC(t *testing.T) {
	t.Parallel()
	raw := tarball(t)
	for _, c := range []struct {
		name string
		blob []byte
		span int64
	}{
		{"gzip", gzipped(t, raw), 100_000},
		{"gzip of one span", gzipped(t, raw), 0},
		{"gzip of the shortest spans", gzipped(t, raw), 1},
		{"gzip with a name", named(t, raw), 100_000},
		{"gzip of many members", gzipped(t, cut(raw, 70_000)...), 100_000},
		{"tar", raw, 100_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			toc, d := zTOC(t, c.blob, c.span), descriptor(c.blob, mediaTar, nil)
			x, err := FromZTOC(encoded(t, toc), d, someClaim())
			if err != nil {
				t.Fatal(err)
			}
			if x.Blob() != d.Digest || x.Claim() != someClaim().Digest || x.Origin() != "a test" || x.Info.Trust != Claimed || !x.seekable() {
				t.Errorf("info %+v", x.Info)
			}
			spans := slices.DeleteFunc(toc.Spans, func(s ztoc.Span) bool { return s.Len == 0 })
			if len(x.Spans) != len(spans) {
				t.Errorf("%d spans of %d", len(x.Spans), len(spans))
			}
			space := addresses(t, x, &blob{bytes: c.blob})
			checkTarball(t, x, space)
			if !bytes.Equal(space, raw[:len(space)]) {
				t.Error("the address space is not the tar")
			}
			again, err := Decode(x.Encode())
			if err != nil {
				t.Fatal(err)
			}
			real, tar := streamed(t, c.blob)
			if d := cmp.Diff(listing(real), listing(again)); d != "" {
				t.Error(d)
			}
			if err := Prove(t.Context(), again, &blob{bytes: c.blob}, real, bytes.NewReader(tar)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Checkpoints of layout 1 begin at byte 10 even where the header goes on.
func TestFromZTOCOfLayout1(t *testing.T) {
	t.Parallel()
	raw := tarball(t)
	p := named(t, raw)
	toc := zTOC(t, p, 100_000)
	s := &toc.Spans[0]
	if s.Off <= sizeGzipHeader {
		t.Fatalf("the header has %d bytes", s.Off)
	}
	s.CLen += s.Off - sizeGzipHeader
	s.Off = sizeGzipHeader
	s.Digest = digest.FromBytes(p[s.Off:][:s.CLen])
	x, err := FromZTOC(encoded(t, toc), descriptor(p, mediaGzip, nil), someClaim())
	if err != nil {
		t.Fatal(err)
	}
	checkTarball(t, x, addresses(t, x, &blob{bytes: p}))
	bad := bytes.Clone(p)
	bad[sizeGzipHeader] ^= 1
	dst := make([]byte, x.Spans[0].Len)
	if err := x.decodeSpan(0, bad[:x.Spans[0].CLen], dst); !errors.Is(err, ErrVerify) {
		t.Errorf("a changed byte of the first span: %v", err)
	}
}

func TestFromZTOCWithoutXattrs(t *testing.T) {
	t.Parallel()
	p := gzipped(t, tarball(t))
	c := someClaim()
	data := encoded(t, zTOC(t, p, 0))
	with, err := FromZTOC(data, descriptor(p, mediaGzip, nil), c)
	if err != nil {
		t.Fatal(err)
	}
	c.DisableXattrs = true
	without, err := FromZTOC(data, descriptor(p, mediaGzip, nil), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(with.Xattrs) != 1 || len(without.Xattrs) != 0 {
		t.Errorf("%d xattrs, %d when they are disabled", len(with.Xattrs), len(without.Xattrs))
	}
}

func TestFromZTOCRefuses(t *testing.T) {
	t.Parallel()
	raw := tarball(t)
	p := gzipped(t, raw)
	d := descriptor(p, mediaGzip, nil)
	good := encoded(t, zTOC(t, p, 100_000))
	short := gzipped(t, cut(tarOf(t, "noise", string(noise(10_000, 1))), 500)...)
	longer := d
	longer.Size++
	other := d
	other.MediaType = mediaZstd
	for _, c := range []struct {
		name string
		data []byte
		d    ocispec.Descriptor
		want string
	}{
		{"nothing", nil, d, "zTOC"},
		{"half of it", good[:len(good)/8*4], d, "zTOC"},
		{"another layer's", good, longer, "another layer"},
		{"a zstd layer", good, other, "another layer"},
		{"a tar's, of a gzip layer", encoded(t, zTOC(t, raw, 0)), ocispec.Descriptor{MediaType: mediaGzip, Digest: d.Digest, Size: int64(len(raw))}, "another layer"},
		{"a name that leaves the root", encoded(t, changed(t, p, func(toc *ztoc.TOC) { toc.Files[1].Name = "../../x" })), d, "leaves the root"},
		{"a user without a number", encoded(t, changed(t, p, func(toc *ztoc.TOC) { toc.Files[1].UID = 1<<32 - 1 })), d, "user number"},
		{"windows that disagree", encoded(t, changed(t, short, func(toc *ztoc.TOC) { toc.Spans[9].Window[ztoc.WindowSize-1000] ^= 1 })), descriptor(short, mediaGzip, nil), "span before differ"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x, err := FromZTOC(c.data, c.d, someClaim())
			if x != nil || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.d.Digest.String()) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// changed is the zTOC, of the shortest spans, after a change.
func changed(t *testing.T, p []byte, change func(*ztoc.TOC)) *ztoc.TOC {
	t.Helper()
	toc := zTOC(t, p, 1)
	change(toc)
	return toc
}

// TestVectorsZTOC: what soci wrote of an image is what streaming its layers finds.
func TestVectorsZTOC(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "shared", "vectors")
	if _, err := os.Stat(root); err != nil {
		t.Logf("no vectors here (%v)", err)
		return
	}
	var index ocispec.Index
	readJSON(t, filepath.Join(root, "tricky", "index.json"), &index)
	for _, m := range index.Manifests {
		if tag := m.Annotations[ocispec.AnnotationRefName]; strings.HasPrefix(tag, "soci") {
			t.Run(tag, func(t *testing.T) {
				t.Parallel()
				proveVector(t, root, m.Digest)
			})
		}
	}
}

// proveVector proves the zTOCs of a SOCI index, or of the one in a list.
func proveVector(t *testing.T, root string, d digest.Digest) {
	t.Helper()
	var list ocispec.Index
	readJSON(t, vector(root, d), &list)
	for _, m := range list.Manifests {
		if m.Annotations[ztoc.AnnotationManifestDigest] != "" {
			d = m.Digest
		}
	}
	raw, err := os.ReadFile(vector(root, d))
	if err != nil {
		t.Fatal(err)
	}
	soci, err := ztoc.ParseIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range soci.Layers {
		p, err := os.ReadFile(vector(root, l.Digest))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(vector(root, l.TOC.Digest))
		if err != nil {
			t.Fatal(err)
		}
		x, err := FromZTOC(data, descriptor(p, l.MediaType, nil), Claim{Digest: l.TOC.Digest})
		if err != nil {
			t.Fatal(err)
		}
		real, tar := streamed(t, p)
		if err := Prove(t.Context(), x, &blob{bytes: p}, real, bytes.NewReader(tar)); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(listing(real), listing(x)); d != "" {
			t.Error(d)
		}
	}
}
