package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// zstdDialect is one of the two ways to write zstd:chunked, which do not read
// each other.
type zstdDialect struct {
	prefix    string // of the annotations
	footer    int    // bytes of the footer's payload
	magic     string // at the footer's end
	landmarks bool   // files that the converter adds
}

// zstdDialects returns the dialect of containers/storage
// (pkg/chunked/internal/minimal/compression.go) and the earlier one of
// stargz-snapshotter (estargz/zstdchunked/zstdchunked.go).
func zstdDialects() []zstdDialect {
	return []zstdDialect{
		{prefix: "io.github.containers.zstd-chunked.", footer: 64, magic: "GNUlInUx"},
		{prefix: "io.containers.zstd-chunked.", footer: 40, magic: "GnUlInUx", landmarks: true},
	}
}

// skippableHeader is the length of a zstd skippable frame's header (RFC 8878,
// section 3.1.2), which precedes the table of contents.
const skippableHeader = 8

func zstdChunkedDigest(d ocispec.Descriptor) string {
	if isGzip(d) {
		return ""
	}
	for _, z := range zstdDialects() {
		if sum := d.Annotations[z.prefix+"manifest-checksum"]; sum != "" {
			return sum
		}
	}
	return ""
}

// tocPlace says where a table of contents lies in a blob.
type tocPlace struct {
	off, n    int64 // compressed bytes
	raw       int64 // decompressed bytes
	kind      int64 // of the table; 1 is the only one there is
	landmarks bool
}

// check tells what is wrong with the place in a blob of size bytes.
func (p tocPlace) check(size int64) error {
	switch {
	case p.kind != 1:
		return fmt.Errorf("table of contents of type %d", p.kind)
	case p.off < skippableHeader || p.n <= 0 || p.off > size || p.n > size-p.off:
		return fmt.Errorf("table of contents at [%d, +%d) of a blob of %d bytes", p.off, p.n, size)
	case p.n > maxTOC:
		return limit("bytes of the table of contents", p.n, maxTOC)
	case p.raw > maxTOCJSON:
		return limit("bytes of the table of contents, decompressed", p.raw, maxTOCJSON)
	}
	return nil
}

func indexZstdChunked(ctx context.Context, src Source, d ocispec.Descriptor, want digest.Digest) (*Index, error) {
	place, t, err := zstdChunkedTOC(ctx, src, d)
	if err != nil {
		return nil, err
	}
	r, body, err := t.open(ctx, place.off, place.n)
	if err != nil {
		return nil, err
	}
	b := newTOC(place.off - skippableHeader)
	b.landmarks = place.landmarks
	if err := closing(body, readZstdTOC(r, b, want)); err != nil {
		return nil, err
	}
	return b.index(InfoInput{
		Blob: d.Digest, Claim: want, Origin: "zstd:chunked table of contents", BlobSize: src.Size(), Format: FormatZstdChunked, Trust: Claimed,
	})
}

// zstdChunkedTOC finds the table of contents by the annotation of its
// position, or else by the footer.
func zstdChunkedTOC(ctx context.Context, src Source, d ocispec.Descriptor) (tocPlace, *tail, error) {
	for _, z := range zstdDialects() {
		if at := d.Annotations[z.prefix+"manifest-position"]; at != "" {
			place, err := parsePosition(at)
			if err == nil {
				err = place.check(src.Size())
			}
			if err != nil {
				return tocPlace{}, nil, malformed("annotation %s: %w", z.prefix+"manifest-position", err)
			}
			place.landmarks = z.landmarks
			return place, &tail{src: src, off: src.Size()}, nil
		}
	}
	t, err := readTail(ctx, src)
	if err != nil {
		return tocPlace{}, nil, err
	}
	for _, z := range zstdDialects() {
		footer := t.last(z.footer)
		if footer == nil || !bytes.HasSuffix(footer, []byte(z.magic)) {
			continue
		}
		field := func(i int) int64 { return int64(binary.LittleEndian.Uint64(footer[8*i:])) }
		place := tocPlace{off: field(0), n: field(1), raw: field(2), kind: field(3), landmarks: z.landmarks}
		if err := place.check(src.Size()); err != nil {
			return tocPlace{}, nil, plain("the blob's footer is of no use: %v", err)
		}
		return place, t, nil
	}
	return tocPlace{}, nil, plain("the annotation promises a table of contents, but the blob has no zstd:chunked footer")
}

// parsePosition parses "offset:length:decompressed length:type".
func parsePosition(s string) (tocPlace, error) {
	fields := strings.Split(s, ":")
	if len(fields) != 4 {
		return tocPlace{}, fmt.Errorf("%q is no position", clip(s))
	}
	var n [4]int64
	for i, f := range fields {
		v, err := strconv.ParseUint(f, 10, 63)
		if err != nil {
			return tocPlace{}, fmt.Errorf("%q is no position", clip(s))
		}
		n[i] = int64(v)
	}
	return tocPlace{off: n[0], n: n[1], raw: n[2], kind: n[3]}, nil
}

// readZstdTOC reads the table from its compressed bytes, which are what the
// digest is of.
func readZstdTOC(r *rangeReader, b *toc, want digest.Digest) error {
	sum := want.Algorithm().Digester()
	compressed := io.TeeReader(r, sum.Hash())
	bad := decodeZstdTOC(compressed, b)
	if _, err := io.Copy(io.Discard, compressed); err != nil {
		return err
	}
	if got := sum.Digest(); got != want {
		return mismatch("table of contents", want, got)
	}
	return bad
}

func decodeZstdTOC(compressed io.Reader, b *toc) error {
	zr, err := newZstd(compressed)
	if err != nil {
		return malformed("table of contents: %w", err)
	}
	defer zr.Close()
	json := &io.LimitedReader{R: zr, N: maxTOCJSON + 1}
	bad := b.read(json)
	if json.N == 0 {
		return malformed("%w", limit("bytes of the table of contents, decompressed", maxTOCJSON+1, maxTOCJSON))
	}
	return bad
}

// newZstd returns a decoder that starts no goroutine.
func newZstd(r io.Reader) (*zstd.Decoder, error) {
	zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return zr, nil
}
