package layer

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
)

// maxTOCEntry bounds the JSON text of one entry, bytes: a path, a target and
// xattrs, all escaped, take no more.
const maxTOCEntry = 4 << 20

// tocEntry is an entry of a table of contents: eStargz's with what
// containers/storage adds.
type tocEntry struct {
	estargz.TOCEntry
	EndOffset int64  `json:"endOffset,omitempty"` // where a file's compressed data ends
	ChunkType string `json:"chunkType,omitempty"` // "zeros" for a hole
}

// toc collects a table of contents. Nothing of it may be used before the
// table's digest has matched.
type toc struct {
	b         *Builder
	end       int64 // of the blob's payload
	landmarks bool  // hide what converters to eStargz add to the tar
	landmark  int64 // as in Info

	chunks int // read so far
	files  []tocFile
	pieces []piece
	marks  []int64 // blob offsets where some payload begins, kept or not
	open   tocOpen
}

// tocFile is a file's data: pieces [first, first+n) for an inode of the
// Builder, or row None for one that is not shown.
type tocFile struct{ row, first, n uint32 }

// piece is a chunk of a file, still without an address.
type piece struct {
	off, inner int64 // where it lies: blob offset, and offset once decompressed
	end        int64 // where the compressed bytes end at the latest; 0 if unknown
	file       int64 // offset in the file
	len        int64
	addr       int64
	sum        [32]byte
}

// tocOpen is the file whose chunks are being read.
type tocOpen struct {
	entry tocEntry
	file  tocFile
	have  int64 // bytes of the file in chunks so far
	holes int64 // of these, in chunks of zeros
	is    bool  // there is one
}

func newTOC(payloadEnd int64) *toc { return &toc{b: NewBuilder(), end: payloadEnd} }

// budget limits how much is read for one value, so that a decoder's buffer
// stays small.
type budget struct {
	r    io.Reader
	left int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, limit("bytes of one entry of the table of contents", maxTOCEntry+1, maxTOCEntry)
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// read takes the entries of the table as they come.
func (t *toc) read(r io.Reader) error {
	in := &budget{r: r}
	dec := json.NewDecoder(in)
	var e tocEntry
	version := 1
	err := eachField(dec, in, func(name string) error {
		switch name {
		case "version":
			return dec.Decode(&version)
		case "entries":
			return eachElement(dec, in, func() error {
				e = tocEntry{}
				if err := dec.Decode(&e); err != nil {
					return err
				}
				return t.add(&e)
			})
		}
		return dec.Decode(new(json.RawMessage))
	})
	switch {
	case err != nil && !errors.Is(err, ErrMalformed):
		return malformed("table of contents: %w", err)
	case err != nil:
		return err
	case version != 1:
		return plain("table of contents of version %d", version)
	}
	return t.closeFile()
}

func eachField(dec *json.Decoder, in *budget, visit func(name string) error) error {
	in.left = maxTOCEntry
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		in.left = maxTOCEntry
		name, err := dec.Token()
		if err != nil {
			return err
		}
		if err := visit(fmt.Sprint(name)); err != nil {
			return err
		}
	}
	in.left = maxTOCEntry
	return expect(dec, '}')
}

func eachElement(dec *json.Decoder, in *budget, visit func() error) error {
	if err := expect(dec, '['); err != nil {
		return err
	}
	for dec.More() {
		in.left = maxTOCEntry
		if err := visit(); err != nil {
			return err
		}
		in.left = maxTOCEntry
	}
	return expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where %v should be", got, want)
	}
	return err
}

func (t *toc) add(e *tocEntry) error {
	if e.Type == "chunk" {
		return t.addChunk(e)
	}
	if err := t.closeFile(); err != nil {
		return err
	}
	row := None
	if t.landmarks && isLandmark(e) {
		t.setLandmark(e)
	} else {
		h, err := e.header()
		if err != nil {
			return malformed("%q: %w", clip(e.Name), err)
		}
		if err := t.b.Add(h); err != nil {
			return err
		}
		row = t.b.lastAdded
	}
	if e.Type != "reg" {
		return nil
	}
	t.open = tocOpen{entry: *e, is: true, file: tocFile{row: row, first: uint32(len(t.pieces))}}
	if e.Size == 0 {
		return nil
	}
	return t.addChunk(e)
}

func isLandmark(e *tocEntry) bool {
	switch strings.TrimPrefix(e.Name, "./") {
	case estargz.PrefetchLandmark, estargz.NoPrefetchLandmark, estargz.TOCTarName:
		return e.Type == "reg"
	}
	return false
}

// setLandmark notes what the place of a landmark means (stargz-snapshotter,
// docs/estargz.md, "Prioritized Files and Landmark Files").
func (t *toc) setLandmark(e *tocEntry) {
	switch strings.TrimPrefix(e.Name, "./") {
	case estargz.NoPrefetchLandmark:
		t.landmark = NoLandmark
	case estargz.PrefetchLandmark:
		if t.landmark != NoLandmark && e.Offset > 0 && e.Offset < t.end {
			t.landmark = e.Offset
		}
	}
}

func (e *tocEntry) header() (*Header, error) {
	h := &Header{Name: e.Name, Link: e.LinkName}
	switch e.Type {
	case "dir":
		h.Mode = typeDir
	case "reg":
		h.Mode = typeRegular
	case "symlink":
		h.Mode = typeSymlink
	case "char":
		h.Mode = typeChar
	case "block":
		h.Mode = typeBlock
	case "fifo":
		h.Mode = typeFifo
	case "hardlink":
		h.Hardlink = true
	default:
		return nil, fmt.Errorf("type %q", clip(e.Type))
	}
	h.Mode |= uint32(e.Mode) & permMask
	if e.ModTime3339 != "" {
		at, err := time.Parse(time.RFC3339, e.ModTime3339)
		if err != nil {
			return nil, fmt.Errorf("time %q", clip(e.ModTime3339))
		}
		h.MtimeSec, h.MtimeNsec = at.Unix(), uint32(at.Nanosecond())
	}
	if len(e.Xattrs) > 0 {
		h.Xattrs = make(map[string]string, len(e.Xattrs))
		for name, value := range e.Xattrs {
			h.Xattrs[name] = string(value)
		}
	}
	h.Size, h.Extents = e.Size, []Extent{} // the data is placed when all of it is known
	return h, h.setNumbers(int64(e.UID), int64(e.GID), int64(e.DevMajor), int64(e.DevMinor))
}

// setNumbers takes numbers over that a header may hold out of range.
func (h *Header) setNumbers(uid, gid, major, minor int64) error {
	for _, f := range []struct {
		what        string
		value, most int64
		to          *uint32
	}{
		{"user", uid, maxID, &h.UID},
		{"group", gid, maxID, &h.GID},
		{"major device", major, maxDevice, &h.RdevMajor},
		{"minor device", minor, maxDevice, &h.RdevMinor},
	} {
		if f.value < 0 || f.value > f.most {
			return fmt.Errorf("%s number %d", f.what, f.value)
		}
		*f.to = uint32(f.value)
	}
	return nil
}

// addChunk takes the next chunk of the open file.
func (t *toc) addChunk(e *tocEntry) error {
	o := &t.open
	name := o.entry.Name
	n := e.ChunkSize
	if n == 0 {
		n = o.entry.Size - e.ChunkOffset
	}
	switch {
	case !o.is || e.Name != "" && e.Name != name:
		return malformed("%q: chunk without its file", clip(e.Name))
	case e.ChunkOffset != o.have || n <= 0 || n > o.entry.Size-o.have:
		return malformed("%q: chunk [%d, +%d) of %d bytes after %d", clip(name), e.ChunkOffset, n, o.entry.Size, o.have)
	case t.chunks == maxChunks:
		return malformed("%w", limit("chunks of the layer", maxChunks+1, maxChunks))
	}
	o.have += n
	t.chunks++
	if e.ChunkType == "zeros" {
		o.holes += n
		t.mark(e.Offset)
		return nil
	}
	switch {
	case n > maxSpan:
		return malformed("%q: %w", clip(name), limit("bytes of a chunk", n, maxSpan))
	case e.Offset < 0 || e.Offset >= t.end:
		return malformed("%q: chunk at %d of a payload of %d bytes", clip(name), e.Offset, t.end)
	case e.InnerOffset < 0 || e.InnerOffset > maxInner-n:
		return malformed("%q: %w", clip(name), limit("inner offset of a chunk", e.InnerOffset, maxInner-n))
	}
	t.mark(e.Offset)
	if o.file.row == None {
		return nil
	}
	p := piece{off: e.Offset, inner: e.InnerOffset, file: e.ChunkOffset, len: n}
	if o.have == o.entry.Size {
		p.end = o.entry.EndOffset
	}
	sum := e.ChunkDigest
	if sum == "" && n == o.entry.Size {
		sum = o.entry.Digest
	}
	var err error
	if p.sum, err = parseSum(sum); err != nil {
		return malformed("%q: %w", clip(name), err)
	}
	t.pieces = append(t.pieces, p)
	o.file.n++
	return nil
}

func (t *toc) mark(off int64) {
	if n := len(t.marks); n == 0 || t.marks[n-1] != off {
		t.marks = append(t.marks, off)
	}
}

func parseSum(s string) (sum [32]byte, err error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(text) != 2*len(sum) {
		return sum, fmt.Errorf("chunk digest %q is no sha256", clip(s))
	}
	if _, err := hex.Decode(sum[:], []byte(text)); err != nil {
		return sum, fmt.Errorf("chunk digest %q: %w", s, err)
	}
	return sum, nil
}

// closeFile checks that the open file's chunks cover it.
func (t *toc) closeFile() error {
	o := t.open
	t.open = tocOpen{}
	if !o.is {
		return nil
	}
	if o.have != o.entry.Size {
		return malformed("%q: chunks cover %d bytes of %d", clip(o.entry.Name), o.have, o.entry.Size)
	}
	if o.file.n == 0 {
		return nil
	}
	t.files = append(t.files, o.file)
	if sum, err := parseSum(o.entry.Digest); err == nil && o.holes <= maxHoles { // as fileSum
		t.b.sums[o.file.row] = sum
	}
	return nil
}

// sortedMarks returns the blob offsets where payloads begin, and the end.
func (t *toc) sortedMarks() []int64 {
	t.marks = append(t.marks, t.end)
	slices.Sort(t.marks)
	return slices.Compact(t.marks)
}
