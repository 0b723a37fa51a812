//go:build linux

package testkit

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
)

// The annotations and the frame layout of containers/storage's dialect.
const (
	podmanPrefix   = "io.github.containers.zstd-chunked."
	skippableMagic = 0x184d2a50
	podmanMagic    = "GNUlInUx"
	podmanChunk    = 64 << 10 // bytes of file per chunk; the real tool cuts by rolling checksum
	podmanHole     = 1 << 10  // a run of zeros this long is a chunk of its own
)

// podmanEntry is an entry of the table of contents in podman's dialect.
type podmanEntry struct {
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	Linkname    string            `json:"linkName,omitempty"`
	Mode        int64             `json:"mode,omitempty"`
	Size        int64             `json:"size,omitempty"`
	UID         int               `json:"uid,omitempty"`
	GID         int               `json:"gid,omitempty"`
	ModTime     *time.Time        `json:"modtime,omitempty"`
	Devmajor    int64             `json:"devMajor,omitempty"`
	Devminor    int64             `json:"devMinor,omitempty"`
	Xattrs      map[string]string `json:"xattrs,omitempty"`
	Digest      string            `json:"digest,omitempty"`
	Offset      int64             `json:"offset,omitempty"`
	EndOffset   int64             `json:"endOffset,omitempty"`
	ChunkSize   int64             `json:"chunkSize,omitempty"`
	ChunkOffset int64             `json:"chunkOffset,omitempty"`
	ChunkDigest string            `json:"chunkDigest,omitempty"`
	ChunkType   string            `json:"chunkType,omitempty"`
}

// podmanWriter lays a tar archive out as zstd frames, a frame per chunk of a
// file and one for whatever lies between two files.
type podmanWriter struct {
	out     bytes.Buffer
	enc     *zstd.Encoder
	pending bytes.Buffer // of the archive, read by the parser and not yet compressed
	toc     []podmanEntry
}

func buildZstdChunked(archive []byte) (Layer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Layer{}, err
	}
	w := &podmanWriter{enc: enc}
	if err := w.entries(archive); err != nil {
		return Layer{}, err
	}
	split, err := tarSplit(archive)
	if err != nil {
		return Layer{}, err
	}
	packedSplit := enc.EncodeAll(split, nil)
	toc, err := json.Marshal(map[string]any{
		"version": 1, "entries": w.toc, "tarSplitDigest": digest.FromBytes(packedSplit),
	})
	if err != nil {
		return Layer{}, err
	}
	packed := enc.EncodeAll(toc, nil)
	tocAt := w.skippable(packed)
	splitAt := w.skippable(packedSplit)
	var footer []byte
	for _, n := range []int{tocAt, len(packed), len(toc), 1, splitAt, len(packedSplit), len(split)} {
		footer = binary.LittleEndian.AppendUint64(footer, uint64(n))
	}
	w.skippable(append(footer, podmanMagic...))

	l := newLayer(ocispec.MediaTypeImageLayerZstd, w.out.Bytes(), archive)
	l.Desc.Annotations = map[string]string{
		podmanPrefix + "manifest-checksum": digest.FromBytes(packed).String(),
		podmanPrefix + "manifest-position": fmt.Sprintf("%d:%d:%d:1", tocAt, len(packed), len(toc)),
		podmanPrefix + "tarsplit-position": fmt.Sprintf("%d:%d:%d", splitAt, len(packedSplit), len(split)),
	}
	return l, enc.Close()
}

// skippable appends b as a skippable frame and returns where its payload lies.
func (w *podmanWriter) skippable(b []byte) int {
	var head []byte
	head = binary.LittleEndian.AppendUint32(head, skippableMagic)
	w.out.Write(binary.LittleEndian.AppendUint32(head, uint32(len(b))))
	at := w.out.Len()
	w.out.Write(b)
	return at
}

func (w *podmanWriter) frame(b []byte) {
	if len(b) > 0 {
		w.out.Write(w.enc.EncodeAll(b, nil))
	}
}

func (w *podmanWriter) entries(archive []byte) error {
	src := bytes.NewReader(archive)
	r := tar.NewReader(io.TeeReader(src, &w.pending))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || h.Size == 0 {
			w.toc = append(w.toc, podmanHeader(h))
			continue
		}
		w.frame(w.pending.Bytes())
		w.pending.Reset()
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		w.pending.Reset()
		w.file(podmanHeader(h), data)
	}
	// The parser stops at the first block of zeros; the rest is padding.
	w.frame(archive[len(archive)-src.Len()-w.pending.Len():])
	return nil
}

func (w *podmanWriter) file(e podmanEntry, data []byte) {
	e.Digest = digest.FromBytes(data).String()
	start := int64(w.out.Len())
	var chunks []podmanEntry
	for at := int64(0); at < int64(len(data)); {
		n, hole := cut(data[at:])
		c := podmanEntry{Type: "chunk", Name: e.Name, Offset: int64(w.out.Len()), ChunkOffset: at, ChunkSize: n}
		c.ChunkDigest = digest.FromBytes(data[at : at+n]).String()
		if hole {
			c.ChunkType = "zeros"
		}
		w.frame(data[at : at+n])
		chunks = append(chunks, c)
		at += n
	}
	e.Offset, e.EndOffset = start, int64(w.out.Len())
	if len(chunks) > 1 {
		e.ChunkSize, e.ChunkDigest, e.ChunkType = chunks[0].ChunkSize, chunks[0].ChunkDigest, chunks[0].ChunkType
	}
	w.toc = append(w.toc, e)
	w.toc = append(w.toc, chunks[1:]...)
}

// cut returns the length of the first chunk of data, and whether it is a hole.
func cut(data []byte) (int64, bool) {
	n := min(len(data), podmanChunk)
	if zeros := leadingZeros(data); zeros >= podmanHole {
		return int64(zeros), true
	}
	if i := bytes.Index(data[:n], make([]byte, podmanHole)); i > 0 {
		n = i
	}
	return int64(n), false
}

func leadingZeros(data []byte) int {
	return len(data) - len(bytes.TrimLeft(data, "\x00"))
}

func podmanHeader(h *tar.Header) podmanEntry {
	kinds := map[byte]string{
		tar.TypeReg: "reg", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeLink: "hardlink",
		tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
	}
	mtime := h.ModTime.UTC()
	e := podmanEntry{
		Type: kinds[h.Typeflag], Name: h.Name, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size,
		UID: h.Uid, GID: h.Gid, ModTime: &mtime, Devmajor: h.Devmajor, Devminor: h.Devminor,
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name] = base64.StdEncoding.EncodeToString([]byte(v))
		}
	}
	return e
}

// tarSplit is what podman needs to put the very same archive together again.
func tarSplit(archive []byte) ([]byte, error) {
	var b bytes.Buffer
	r, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(archive), storage.NewJSONPacker(&b), storage.NewDiscardFilePutter())
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r)
	if err := errors.Join(err, r.Close(), <-done); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
