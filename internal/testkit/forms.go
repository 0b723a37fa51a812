//go:build linux

package testkit

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	stargzTOC  = "containerd.io/snapshot/stargz/toc.digest"
	memberSize = 1 << 18 // bytes of tar per gzip member of the many-member form
	chunkSize  = 1 << 20 // bytes of file per TOC chunk
)

// A Layer is a blob in one form and what a manifest says of it.
type Layer struct {
	Desc   ocispec.Descriptor
	DiffID digest.Digest
	Blob   []byte
}

// A Form is a way to keep a layer in a registry. The forms of one layer have
// the same content, but not the same tar: some add members of their own.
type Form string

// The forms, by the tags that images have in them.
const (
	Gzip             Form = "gz"
	GzipMembers      Form = "gz-members"
	PlainTar         Form = "tar"
	Zstd             Form = "zst"
	Stargz           Form = "esgz"
	StargzMin        Form = "esgz-min"    // chunks share gzip members
	StargzLegacy     Form = "esgz-legacy" // 47-byte footer
	ZstdChunkedEarly Form = "zstdchunked-early"
	ZstdChunked      Form = "zstdchunked" // podman's dialect
)

// Forms lists every form.
func Forms() []Form {
	return []Form{Gzip, GzipMembers, PlainTar, Zstd, Stargz, StargzMin, StargzLegacy, ZstdChunkedEarly, ZstdChunked}
}

// Indexed reports whether the form has a table of contents, so that it can be
// read lazily. Such a table may round times to whole seconds.
func (f Form) Indexed() bool {
	return slices.Contains([]Form{Stargz, StargzMin, StargzLegacy, ZstdChunkedEarly, ZstdChunked}, f)
}

// Encode writes a tar archive in the form.
func (f Form) Encode(archive []byte) (Layer, error) {
	switch f {
	case Gzip:
		blob, err := gzipMembers(archive, len(archive)+1)
		return newLayer(ocispec.MediaTypeImageLayerGzip, blob, archive), err
	case GzipMembers:
		blob, err := gzipMembers(archive, memberSize)
		return newLayer(ocispec.MediaTypeImageLayerGzip, blob, archive), err
	case PlainTar:
		return newLayer(ocispec.MediaTypeImageLayer, archive, archive), nil
	case Zstd:
		blob, err := zstdFrame(archive)
		return newLayer(ocispec.MediaTypeImageLayerZstd, blob, archive), err
	case Stargz:
		return buildStargz(archive, estargz.WithCompressionLevel(gzip.BestSpeed))
	case StargzMin:
		return buildStargz(archive, estargz.WithCompressionLevel(gzip.BestSpeed), estargz.WithMinChunkSize(64<<10))
	case StargzLegacy:
		c := struct {
			legacyCompressor
			*estargz.GzipDecompressor
		}{legacyCompressor{}, &estargz.GzipDecompressor{}}
		return buildStargz(archive, estargz.WithCompression(c))
	case ZstdChunkedEarly:
		return buildEarly(archive)
	case ZstdChunked:
		return buildZstdChunked(archive)
	}
	return Layer{}, fmt.Errorf("form %q is not known", f)
}

func newLayer(mediaType string, blob, archive []byte) Layer {
	return Layer{
		Desc:   ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))},
		DiffID: digest.FromBytes(archive),
		Blob:   blob,
	}
}

func gzipMembers(archive []byte, size int) ([]byte, error) {
	var b bytes.Buffer
	for member := range slices.Chunk(archive, size) {
		w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(member); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func zstdFrame(data []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return w.EncodeAll(data, nil), w.Close()
}

func buildStargz(archive []byte, opts ...estargz.Option) (Layer, error) {
	opts = append(opts, estargz.WithChunkSize(chunkSize))
	b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive))), opts...)
	if err != nil {
		return Layer{}, err
	}
	blob, err := io.ReadAll(b)
	if err != nil {
		return Layer{}, err
	}
	if err := b.Close(); err != nil {
		return Layer{}, err
	}
	l := newLayer(ocispec.MediaTypeImageLayerGzip, blob, nil)
	l.DiffID = b.DiffID()
	l.Desc.Annotations = map[string]string{stargzTOC: b.TOCDigest().String()}
	return l, nil
}

func buildEarly(archive []byte) (Layer, error) {
	notes := map[string]string{}
	c := struct {
		*zstdchunked.Compressor
		*zstdchunked.Decompressor
	}{&zstdchunked.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: notes}, &zstdchunked.Decompressor{}}
	l, err := buildStargz(archive, estargz.WithCompression(c))
	if err != nil {
		return Layer{}, err
	}
	l.Desc.MediaType = ocispec.MediaTypeImageLayerZstd
	maps.Copy(l.Desc.Annotations, notes)
	return l, nil
}

// HostileStargz is an eStargz layer whose table of contents, before it is
// written and given its digest, has been through change.
func HostileStargz(archive []byte, change func(*estargz.JTOC)) (Layer, error) {
	c := struct {
		changingCompressor
		*estargz.GzipDecompressor
	}{changingCompressor{estargz.NewGzipCompressorWithLevel(gzip.BestSpeed), change}, &estargz.GzipDecompressor{}}
	return buildStargz(archive, estargz.WithCompression(c))
}

type changingCompressor struct {
	*estargz.GzipCompressor
	change func(*estargz.JTOC)
}

func (c changingCompressor) WriteTOCAndFooter(w io.Writer, off int64, toc *estargz.JTOC, diff hash.Hash) (digest.Digest, error) {
	c.change(toc)
	return c.GzipCompressor.WriteTOCAndFooter(w, off, toc, diff)
}

// legacyCompressor ends a layer with the 47-byte footer of CRFS.
type legacyCompressor struct{}

func (legacyCompressor) Writer(w io.Writer) (estargz.WriteFlushCloser, error) {
	return gzip.NewWriterLevel(w, gzip.BestSpeed)
}

func (legacyCompressor) WriteTOCAndFooter(w io.Writer, off int64, toc *estargz.JTOC, diff hash.Hash) (digest.Digest, error) {
	var whole bytes.Buffer
	d, err := estargz.NewGzipCompressorWithLevel(gzip.BestSpeed).WriteTOCAndFooter(&whole, off, toc, diff)
	if err != nil {
		return "", err
	}
	b := whole.Bytes()[:whole.Len()-estargz.FooterSize]
	_, err = w.Write(append(b, estargz.CreateGzipFooter(fmt.Appendf(nil, "%016xSTARGZ", off))...))
	return d, err
}

// manifest is what a tag of an image points to.
func manifest(config ocispec.Descriptor, layers []Layer) ocispec.Manifest {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Desc)
	}
	return m
}
