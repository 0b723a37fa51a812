package convert

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// landmark is the content of the landmark files (stargz-snapshotter,
// docs/estargz.md, "Prioritized Files and Landmark Files").
const landmark = "\x0f"

// toEstargz converts a tar by way of a temporary file: its entries are only
// known to be right, and in order, when the last one is.
//
// estargz.Build would do the same at a higher level, but takes the holes of
// sparse files for data and loses hard links to files that are replaced later,
// hence its Writer and our own order.
func toEstargz(ctx context.Context, in io.Reader, out io.Writer, o Options) (r Result, err error) {
	s, err := newSpool(in, o.Dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	outs, err := settle(s.items)
	if err != nil {
		return r, err
	}
	outs, first, found := order(outs, s.items, o.Profile)
	blob := newSums(out)
	members := &members{gzip: estargz.NewGzipCompressorWithLevel(gzip.DefaultCompression)}
	w := &stargzWriter{ctx: ctx, spool: s, members: members, to: estargz.NewWriterWithCompressor(blob, members)}
	w.to.ChunkSize = o.Chunk
	if err := w.writeAll(outs, first); err != nil {
		return r, err
	}
	toc, err := w.to.Close()
	if err != nil {
		return r, err
	}
	diffID, err := digest.Parse("sha256:" + strings.TrimPrefix(w.to.DiffID(), "sha256:"))
	if err != nil {
		return r, err
	}
	return Result{
		Desc: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: blob.digest(), Size: blob.n,
			Annotations: map[string]string{
				estargz.TOCJSONDigestAnnotation:         toc.String(),
				estargz.StoreUncompressedSizeAnnotation: strconv.FormatInt(members.n, 10),
			},
		},
		DiffID: diffID, Tar: members.n, Prioritized: found,
	}, nil
}

// stargzWriter writes entries of a spool to an eStargz layer.
type stargzWriter struct {
	ctx     context.Context //nolint:containedctx // it lives as long as one call of toEstargz
	spool   *spool
	members *members
	to      *estargz.Writer
}

// writeAll writes the entries with a landmark after the first ones.
func (w *stargzWriter) writeAll(outs []output, first int) error {
	mark := &tar.Header{Typeflag: tar.TypeReg, Name: estargz.NoPrefetchLandmark, Size: int64(len(landmark))}
	if first > 0 {
		mark.Name = estargz.PrefetchLandmark
	}
	for i, o := range outs {
		if i == first {
			if err := w.append(mark, strings.NewReader(landmark)); err != nil {
				return err
			}
		}
		if err := w.write(o); err != nil {
			return about(w.spool.items[o.item].name, err)
		}
	}
	if first == len(outs) {
		return w.append(mark, strings.NewReader(landmark))
	}
	return nil
}

func (w *stargzWriter) write(o output) error {
	h, data, err := w.spool.open(w.spool.items[o.item])
	if err != nil {
		return err
	}
	found, err := xattrs(h.PAXRecords)
	if err != nil {
		return err
	}
	h.PAXRecords = nil // those for sparse files, and those that are fields of h
	for name, value := range found {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string, len(found))
		}
		h.PAXRecords[schilyXattr+name] = value
	}
	if kind, err := typeName(h.Typeflag); err != nil {
		return err
	} else if kind == "reg" {
		h.Typeflag = tar.TypeReg
	} else {
		h.Size = 0 // whatever it says
	}
	if o.name != "" {
		h.Name = o.name
	}
	if o.link != "" {
		h.Linkname = o.link
	}
	return w.append(h, data)
}

// append writes one entry, as a tar of its own without an end.
func (w *stargzWriter) append(h *tar.Header, data io.Reader) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	// The one format without limits, and with exact times. AppendTar would take
	// what begins like gzip for gzip, but no entry does: its name is UTF-8.
	h.Format = tar.FormatPAX
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
		return err
	}
	w.members.times = append(w.members.times, h.ModTime)
	if h.Typeflag != tar.TypeReg {
		return w.to.AppendTar(&head)
	}
	padding := bytes.NewReader(make([]byte, align(h.Size)-h.Size))
	return w.to.AppendTar(io.MultiReader(&head, data, padding))
}

// members is the estargz.Compressor of a layer: it makes gzip members, one
// after the other with the same compressor, and counts the tar within them.
type members struct {
	gzip  *estargz.GzipCompressor
	zw    *gzip.Writer
	n     int64       // bytes of tar
	times []time.Time // modification times of the entries, in order
}

// Writer begins a member.
func (m *members) Writer(w io.Writer) (estargz.WriteFlushCloser, error) {
	if m.zw != nil {
		m.zw.Reset(w)
		return &member{m}, nil
	}
	var err error
	m.zw, err = gzip.NewWriterLevel(w, gzip.DefaultCompression)
	return &member{m}, err
}

// WriteTOCAndFooter ends the layer. It gives the entries their exact times,
// which estargz has rounded to seconds.
func (m *members) WriteTOCAndFooter(w io.Writer, off int64, toc *estargz.JTOC, diff hash.Hash) (digest.Digest, error) {
	i := 0
	for _, e := range toc.Entries {
		if e.Type == "chunk" {
			continue
		}
		if at := m.times[i]; !at.Equal(time.Unix(0, 0)) {
			e.ModTime3339 = at.UTC().Format(time.RFC3339Nano)
		}
		i++
	}
	return m.gzip.WriteTOCAndFooter(w, off, toc, &countedHash{diff, &m.n})
}

type member struct{ m *members }

func (w *member) Write(p []byte) (int, error) {
	n, err := w.m.zw.Write(p)
	w.m.n += int64(n)
	return n, err
}

// Flush does nothing: estargz flushes in order to learn how long a member has
// become, which matters only where chunks share members.
func (w *member) Flush() error { return nil }

func (w *member) Close() error { return w.m.zw.Close() }

type countedHash struct {
	hash.Hash
	n *int64
}

func (h *countedHash) Write(p []byte) (int, error) {
	*h.n += int64(len(p))
	return h.Hash.Write(p)
}
