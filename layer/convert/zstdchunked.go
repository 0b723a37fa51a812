package convert

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The annotations and the trailer of containers/storage's dialect
// (pkg/chunked/internal/minimal/compression.go).
const (
	podmanPrefix   = "io.github.containers.zstd-chunked."
	podmanMagic    = "GNUlInUx"
	podmanTOC      = 1 // type of the table of contents; there is no other
	skippableMagic = 0x184d2a50
)

// maxPending is how many bytes between the data of two files share a frame.
const maxPending = 1 << 20

// zstdWriter lays a tar out as zstd frames: one for each chunk of a file, and
// some for whatever lies between the data of two files.
type zstdWriter struct {
	out     *sums
	diff    *sums
	enc     *zstd.Encoder
	tap     *tap
	buf     []byte // data of the chunk at hand
	packed  []byte // scratch for frames
	pending []byte // read between files and not yet written
	toc     *tocWriter
	quota   quota
}

// toZstdChunked converts a tar that stays as it is, byte for byte.
func toZstdChunked(in io.Reader, out io.Writer, o Options) (r Result, err error) {
	enc, err := newEncoder(nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, enc.Close()) }()
	toc, err := newTOCWriter()
	if err != nil {
		return r, err
	}
	split, err := newSplitter(in)
	if err != nil {
		return r, errors.Join(err, toc.enc.Close())
	}
	w := &zstdWriter{out: newSums(out), diff: newSums(io.Discard), enc: enc, toc: toc, buf: make([]byte, o.Chunk)}
	w.tap = &tap{src: io.TeeReader(split, w.diff), raw: w.hold}
	if err := split.finish(w.run()); err != nil {
		return r, errors.Join(err, toc.enc.Close())
	}
	if err := toc.seal(split.digest()); err != nil {
		return r, err
	}
	return w.end(split)
}

// window is that of zstd frames, bytes: DefaultChunk, as what lies further back
// is of no use to a chunk, and each of a conversion's encoders holds two.
const window = 1 << 20

// newEncoder returns an encoder that is deterministic and starts no goroutine.
func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
}

func (w *zstdWriter) run() error {
	tr := tar.NewReader(w.tap)
	for {
		at := w.tap.pos
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badTar(at, err)
		}
		if err := w.entry(h, tr); err != nil {
			return about(h.Name, err)
		}
	}
	// The parser stops at the first block of zeros; the rest is padding.
	if _, err := io.Copy(io.Discard, w.tap); err != nil {
		return badTar(w.tap.pos, err)
	}
	return w.flush()
}

func (w *zstdWriter) entry(h *tar.Header, data io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // defaults for entries to come, which no builder of images writes
	}
	e, err := newTOCEntry(h)
	if err != nil {
		return err
	}
	if err := w.quota.spend(len(h.Name)+len(h.Linkname), e.Size); err != nil {
		return err
	}
	if e.Size == 0 {
		return w.toc.add(e)
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.file(e, data)
}

// hold keeps bytes between the data of files for a frame.
func (w *zstdWriter) hold(p []byte) error {
	w.pending = append(w.pending, p...)
	if len(w.pending) < maxPending {
		return nil
	}
	return w.flush()
}

func (w *zstdWriter) flush() error {
	p := w.pending
	w.pending = w.pending[:0]
	return w.frame(p)
}

// frame writes bytes of the tar as a frame of their own.
func (w *zstdWriter) frame(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	w.packed = w.enc.EncodeAll(p, w.packed[:0])
	_, err := w.out.Write(w.packed)
	return err
}

// end writes the table of contents, podman's tar-split and the footer, each in
// a skippable frame (RFC 8878, section 3.1.2).
func (w *zstdWriter) end(split *splitter) (r Result, err error) {
	toc, tarSplit := w.toc.packed.Bytes(), split.packed.Bytes()
	tocAt, err := w.skippable(toc)
	if err != nil {
		return r, err
	}
	splitAt, err := w.skippable(tarSplit)
	if err != nil {
		return r, err
	}
	var footer []byte
	for _, n := range []int64{tocAt, int64(len(toc)), w.toc.json.n, podmanTOC, splitAt, int64(len(tarSplit)), split.json.n} {
		footer = binary.LittleEndian.AppendUint64(footer, uint64(n))
	}
	if _, err := w.skippable(append(footer, podmanMagic...)); err != nil {
		return r, err
	}
	return Result{
		Desc: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerZstd, Digest: w.out.digest(), Size: w.out.n,
			Annotations: map[string]string{
				podmanPrefix + "manifest-checksum": digest.FromBytes(toc).String(),
				podmanPrefix + "manifest-position": fmt.Sprintf("%d:%d:%d:%d", tocAt, len(toc), w.toc.json.n, podmanTOC),
				podmanPrefix + "tarsplit-position": fmt.Sprintf("%d:%d:%d", splitAt, len(tarSplit), split.json.n),
			},
		},
		DiffID: w.diff.digest(),
		Tar:    w.diff.n,
	}, nil
}

// skippable writes p as a skippable frame and returns where its payload lies.
func (w *zstdWriter) skippable(p []byte) (int64, error) {
	if int64(len(p)) >= 1<<32 {
		return 0, fmt.Errorf("%w: a table of contents of %d bytes", ErrMalformed, len(p))
	}
	head := binary.LittleEndian.AppendUint32(nil, skippableMagic)
	if _, err := w.out.Write(binary.LittleEndian.AppendUint32(head, uint32(len(p)))); err != nil {
		return 0, err
	}
	at := w.out.n
	_, err := w.out.Write(p)
	return at, err
}
