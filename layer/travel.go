package layer

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer/inflate"
)

// maxIndexFile bounds an index that somebody hands out, unpacked, in bytes.
const maxIndexFile = 512 << 20

// errOther: the index is coherent, but not of this layer.
var errOther = errors.New("the index of another layer")

// Claim is what is known of an index that somebody hands out.
type Claim struct {
	Digest        digest.Digest // of its bytes, which the caller has compared with them
	Origin        string        // where it is from: words for people
	DisableXattrs bool          // of a zTOC: whatever it says of extended attributes is ignored
}

// Pack returns the index in the form that travels, the same wherever the layer
// was indexed: what it was made from and why is left out, as is the trust in
// it, which does not travel; digests of chunks once more, which are made anew;
// and those of files but for the few that are long enough to have spans of their
// own, since they would be most of it.
func (x *Index) Pack() []byte {
	in := x.input()
	in.DiffID, in.Claim, in.Origin, in.Reason, in.Trust = "", "", "", "", Claimed
	// The options are constants that the library takes.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		panic(err)
	}
	y := x.describedBy(in)
	y.Files, y.Digests = x.filesOfSpans(), nil
	return w.EncodeAll(y.Encode(), nil)
}

// Unpack returns the index in data, which Pack made, as a claim on the layer
// with descriptor d. Its error is ErrMalformed, also if the index is of another
// layer or of another version of peel.
func Unpack(data []byte, d ocispec.Descriptor, c Claim) (*Index, error) {
	x, err := unpack(data, d)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w: index: %w", d.Digest, ErrMalformed, err)
	}
	in := x.input()
	in.DiffID, in.Claim, in.Origin, in.Reason, in.Trust = "", c.Digest, c.Origin, "", Claimed
	if in.Resident = printable(in.Resident); x.seekable() {
		in.Resident = ""
	}
	return x.describedBy(in), nil
}

// printable leaves of somebody's words what does nothing to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, clip(s))
}

func unpack(data []byte, d ocispec.Descriptor) (*Index, error) {
	file, err := unpackFile(data)
	if err != nil {
		return nil, err
	}
	x, err := decodeTables(file)
	if err != nil {
		return nil, err
	}
	if err := x.validateTables(); err != nil {
		return nil, fmt.Errorf("%w: %w", flat.ErrCorrupt, err)
	}
	x.sortDigests()
	if x.Blob() != d.Digest || x.Info.BlobSize != d.Size {
		return nil, fmt.Errorf("of layer %.100q of %d bytes, not %d: %w", x.Blob(), x.Info.BlobSize, d.Size, errOther)
	}
	return x, x.validateForeign()
}

// validateForeign checks what a Builder sees to and Decode takes for granted.
func (x *Index) validateForeign() error {
	depth := make([]uint16, len(x.Inodes)) // of directories, which come after those they are in
	for row := range x.Inodes {
		for _, e := range x.entries(uint32(row)) {
			if e.Kind != EntryInode || !x.Inodes[e.Inode].isDir() {
				continue
			}
			if depth[e.Inode] = depth[row] + 1; depth[e.Inode] > maxDepth {
				return limit("directories deep", maxDepth+1, maxDepth)
			}
		}
	}
	if x.Info.Digests != OfBlob {
		return nil
	}
	if x.Info.Format != FormatGzip || !x.seekable() {
		return fmt.Errorf("digests of the blob in a layer of format %v without checkpoints", x.Info.Format)
	}
	for i := range x.Spans {
		c := &x.Chunks[x.Spans[i].Chunks.First]
		if x.Spans[i].Chunks.Count != 1 || c.Inner != 0 && (i != 0 || c.Inner != sizeGzipHeader) {
			return fmt.Errorf("span %d: a digest of less than its bytes", i)
		}
		if n := x.Spans[i].Len; i < len(x.Spans)-1 && n < inflate.WindowSize {
			return fmt.Errorf("span %d: %d bytes, less than a window", i, n)
		}
	}
	return nil
}

// unpackFile decompresses an index. The frame's header says how long it gets.
func unpackFile(data []byte) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(data); err != nil {
		return nil, err
	}
	most := min(maxIndexFile, mostOutput(int64(len(data))))
	switch {
	case h.Skippable || !h.HasFCS:
		return nil, errors.New("a frame that does not say how long it is")
	case h.FrameContentSize > uint64(most):
		return nil, limit("bytes of the index", int64(min(h.FrameContentSize, maxAddr)), most)
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(maxIndexFile))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.DecodeAll(data, make([]byte, 0, h.FrameContentSize))
}

// AsProved returns a copy of the index that says Proved: of a layer whose tar
// has the digest diffID and with which Prove has compared the index.
func (x *Index) AsProved(diffID digest.Digest) *Index {
	in := x.input()
	in.DiffID, in.Trust = diffID, Proved
	return x.describedBy(in)
}

// input is what x.Info was made from.
func (x *Index) input() InfoInput {
	return InfoInput{
		Blob: x.Blob(), DiffID: x.DiffID(), Claim: x.Claim(),
		Origin: x.Origin(), Reason: x.Reason(), Resident: x.Resident(),
		BlobSize: x.Info.BlobSize, AddrSize: x.Info.AddrSize, Landmark: x.Info.Landmark,
		Format: x.Info.Format, Trust: x.Info.Trust, Digests: x.Info.Digests,
	}
}

// describedBy returns a copy of x with another Info. It shares the tables, and
// has a pool of its own: without the strings of the Info before, which lie
// behind all others.
func (x *Index) describedBy(in InfoInput) *Index {
	end := x.tableStrings()
	var strings flat.PoolBuilder
	info := in.info(&strings)
	for _, s := range []*flat.Str{&info.Blob, &info.DiffID, &info.Claim, &info.Origin, &info.Reason, &info.Resident} {
		s.Off += end
	}
	return &Index{
		Info: info, Inodes: x.Inodes, Entries: x.Entries, Extents: x.Extents, Xattrs: x.Xattrs,
		Spans: x.Spans, Chunks: x.Chunks, Checkpoints: x.Checkpoints, Windows: x.Windows, Files: x.Files, Digests: x.Digests,
		Pool: append(x.Pool[:end:end], strings.Pool()...),
	}
}

// tableStrings returns where in the pool the last string of a table ends.
func (x *Index) tableStrings() uint32 {
	var end uint32
	reach := func(s flat.Str) { end = max(end, s.Off+s.Len) }
	for i := range x.Inodes {
		reach(x.Inodes[i].Link)
	}
	for i := range x.Entries {
		reach(x.Entries[i].Name)
		reach(x.Entries[i].Link)
	}
	for i := range x.Xattrs {
		reach(x.Xattrs[i].Name)
		reach(x.Xattrs[i].Value)
	}
	return end
}
