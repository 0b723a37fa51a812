package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// estargzDigest: only the manifest can vouch for a table of contents, so that
// a layer without the annotation is not eStargz, whatever its bytes are
// (stargz-snapshotter, docs/estargz.md, "TOC JSON digest").
func estargzDigest(d ocispec.Descriptor) string {
	if isZstd(d) {
		return ""
	}
	return d.Annotations[estargz.TOCJSONDigestAnnotation]
}

func indexEstargz(ctx context.Context, src Source, d ocispec.Descriptor, want digest.Digest) (*Index, error) {
	t, err := readTail(ctx, src)
	if err != nil {
		return nil, err
	}
	off, n, err := estargzTOC(t, src.Size())
	if err != nil {
		return nil, err
	}
	r, body, err := t.open(ctx, off, n)
	if err != nil {
		return nil, err
	}
	b := newTOC(off)
	b.landmarks = true
	if err := closing(body, readEstargzTOC(r, b, want)); err != nil {
		return nil, err
	}
	return b.index(InfoInput{
		Blob: d.Digest, Claim: want, Origin: "eStargz table of contents", BlobSize: src.Size(), Format: FormatEstargz, Trust: Claimed,
	})
}

// estargzTOC finds the table of contents by the footer: 51 bytes, or the 47 of
// the CRFS format before it.
func estargzTOC(t *tail, size int64) (off, n int64, err error) {
	for _, f := range []estargz.Decompressor{new(estargz.GzipDecompressor), new(estargz.LegacyGzipDecompressor)} {
		footer := t.last(int(f.FooterSize()))
		if footer == nil {
			continue
		}
		if _, off, _, err = f.ParseFooter(footer); err != nil {
			continue
		}
		n = size - f.FooterSize() - off
		switch {
		case off <= 0 || n <= 0:
			return 0, 0, plain("the footer puts the table of contents at %d of a blob of %d bytes", off, size)
		case n > maxTOC:
			return 0, 0, malformed("%w", limit("bytes of the table of contents", n, maxTOC))
		}
		return off, n, nil
	}
	return 0, 0, plain("the annotation promises a table of contents, but the blob has no eStargz footer")
}

// readEstargzTOC reads the table from its gzip member, a tar of one file.
func readEstargzTOC(r *rangeReader, b *toc, want digest.Digest) error {
	garbled := func(err error) error {
		if r.err != nil {
			return r.err
		}
		return fmt.Errorf("%w: table of contents: expected %s, got bytes that do not unpack: %w", ErrVerify, want, err)
	}
	zr, err := gzip.NewReader(r)
	if err != nil {
		return garbled(err)
	}
	zr.Multistream(false)
	tr := tar.NewReader(zr)
	h, err := tr.Next()
	switch {
	case err != nil:
		return garbled(err)
	case h.Name != estargz.TOCTarName:
		return garbled(fmt.Errorf("file %q", clip(h.Name)))
	case h.Size > maxTOCJSON:
		return malformed("%w", limit("bytes of the table of contents, decompressed", h.Size, maxTOCJSON))
	}
	sum := want.Algorithm().Digester()
	json := io.TeeReader(tr, sum.Hash())
	bad := b.read(json)
	if _, err := io.Copy(io.Discard, json); err != nil {
		return garbled(err)
	}
	if got := sum.Digest(); got != want {
		return mismatch("table of contents", want, got)
	}
	return bad
}
