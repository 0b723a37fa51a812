package convert

import (
	"bytes"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// minHole is how many zeros in a row become a chunk of their own, which readers
// need not fetch: a page, as less saves no request.
const minHole = 4 << 10

const zerosChunk = "zeros"

// fileWriter writes one file's chunks. Their bounds are fixed ones and those of
// runs of zeros.
type fileWriter struct {
	w      *zstdWriter
	name   string
	sum    hash.Hash // of the file
	off    int64     // in the file
	chunks []tocEntry
	hole   hash.Hash // of the last chunk, if that is a hole of which the tar has nothing
}

// file writes the data of a regular file, and its entries.
func (w *zstdWriter) file(e tocEntry, data io.Reader) error {
	f := fileWriter{w: w, name: e.Name, sum: digest.SHA256.Hash()}
	for f.off < e.Size {
		buf := w.buf[:min(int64(len(w.buf)), e.Size-f.off)]
		pieces, err := w.tap.fill(data, buf)
		if err != nil {
			return badTar(w.tap.pos, err)
		}
		f.sum.Write(buf)
		if err := f.put(buf, pieces); err != nil {
			return err
		}
	}
	f.closeHole()
	first := f.chunks[0]
	e.Digest = sumOf(f.sum)
	e.Offset, e.EndOffset = first.Offset, w.out.n
	if len(f.chunks) > 1 || first.ChunkType != "" {
		e.ChunkSize, e.ChunkDigest, e.ChunkType = first.ChunkSize, first.ChunkDigest, first.ChunkType
	}
	if err := w.toc.add(e); err != nil {
		return err
	}
	for _, c := range f.chunks[1:] {
		if err := w.toc.add(c); err != nil {
			return err
		}
	}
	return nil
}

// put takes the next bytes of the file, of which the tar has the pieces.
func (f *fileWriter) put(buf []byte, pieces []piece) error {
	at := 0
	for _, p := range pieces {
		f.absent(buf[at:p.off])
		for rest := buf[p.off:][:p.n]; len(rest) > 0; {
			n, zeros := cut(rest)
			if err := f.present(rest[:n], zeros); err != nil {
				return err
			}
			rest = rest[n:]
		}
		at = p.off + p.n
	}
	f.absent(buf[at:])
	return nil
}

// present adds a chunk that the tar has.
func (f *fileWriter) present(p []byte, kind string) error {
	f.closeHole()
	f.chunks = append(f.chunks, tocEntry{
		Type: "chunk", Name: f.name, Offset: f.w.out.n, ChunkOffset: f.off, ChunkSize: int64(len(p)),
		ChunkDigest: digest.FromBytes(p).String(), ChunkType: kind,
	})
	f.off += int64(len(p))
	return f.w.frame(p)
}

// absent adds zeros that the tar has not, as part of one chunk for the whole
// hole, however large.
func (f *fileWriter) absent(zeros []byte) {
	if len(zeros) == 0 {
		return
	}
	if f.hole == nil {
		f.hole = digest.SHA256.Hash()
		f.chunks = append(f.chunks, tocEntry{
			Type: "chunk", Name: f.name, Offset: f.w.out.n, ChunkOffset: f.off, ChunkType: zerosChunk,
		})
	}
	f.hole.Write(zeros)
	f.chunks[len(f.chunks)-1].ChunkSize += int64(len(zeros))
	f.off += int64(len(zeros))
}

func (f *fileWriter) closeHole() {
	if f.hole != nil {
		f.chunks[len(f.chunks)-1].ChunkDigest = sumOf(f.hole)
		f.hole = nil
	}
}

// cut returns the length and the kind of p's first chunk.
func cut(p []byte) (n int, kind string) {
	if n := leadingZeros(p); n >= minHole {
		return n, zerosChunk
	}
	// A run of zeros that is long enough holds one of these bytes.
	for i := minHole - 1; i < len(p); i += minHole {
		if p[i] != 0 {
			continue
		}
		start := len(bytes.TrimRight(p[:i], "\x00"))
		if i-start+leadingZeros(p[i:]) >= minHole {
			return start, ""
		}
	}
	return len(p), ""
}

func leadingZeros(p []byte) int { return len(p) - len(bytes.TrimLeft(p, "\x00")) }

func sumOf(h hash.Hash) string { return digest.NewDigest(digest.SHA256, h).String() }
