package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/peelfs/peel/internal/flat"
)

// validate checks every reference between the tables, and everything else that
// users of an Index rely on. It allocates nothing that grows with the layer.
func (x *Index) validate() error {
	if err := x.validateTables(); err != nil {
		return err
	}
	return x.validateDigests()
}

// validateTables is validate but for what sortDigests makes anew.
func (x *Index) validateTables() error {
	for _, check := range []func() error{x.validateInfo, x.validateTree, x.validateSpans, x.validateCheckpoints, x.validateFiles} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) validateInfo() error {
	i := &x.Info
	for _, s := range []flat.Str{i.Blob, i.DiffID, i.Claim, i.Origin, i.Reason, i.Resident} {
		if !x.Pool.Holds(s) {
			return errors.New("a string of the layer lies outside the pool")
		}
	}
	switch {
	case i.BlobSize < 0:
		return fmt.Errorf("blob of %d bytes", i.BlobSize)
	case i.AddrSize < 0 || i.AddrSize > maxAddr:
		return limit("bytes of the address space", i.AddrSize, maxAddr)
	case i.Landmark < NoLandmark || i.Landmark > i.BlobSize || i.Landmark != 0 && x.isTar():
		return fmt.Errorf("landmark at %d of a blob of %d bytes", i.Landmark, i.BlobSize)
	case i.Format < FormatTar || i.Format > FormatFile:
		return fmt.Errorf("format %d", i.Format)
	case i.Trust < Claimed || i.Trust > Proved:
		return fmt.Errorf("trust %d", i.Trust)
	case i.Digests > OfBlob:
		return fmt.Errorf("digests of %d", i.Digests)
	case len(x.Inodes) == 0 || !x.Inodes[0].isDir():
		return errRootType
	case len(x.Inodes) > maxEntries || len(x.Entries) > maxEntries:
		return limit("entries of the layer", int64(max(len(x.Inodes), len(x.Entries))), maxEntries)
	}
	return nil
}

// validateTree relies on the order in which inodes are numbered: a directory's
// entries follow those of the directory before it, and an inode has the next
// number where it is first met. So each directory has one place and there are
// no cycles.
func (x *Index) validateTree() error {
	for i := range x.Xattrs {
		if a := &x.Xattrs[i]; !x.Pool.Holds(a.Name) || !x.Pool.Holds(a.Value) {
			return fmt.Errorf("xattr %d: a string lies outside the pool", i)
		}
	}
	entry, inode := uint32(0), uint32(1)
	for row := range x.Inodes {
		in := &x.Inodes[row]
		if err := x.validateInode(in); err != nil {
			return fmt.Errorf("inode %d: %w", row, err)
		}
		if !in.isDir() {
			if in.Children != (flat.Range{}) {
				return fmt.Errorf("inode %d: children of a file", row)
			}
			continue
		}
		if in.Children.First != entry || !in.Children.In(len(x.Entries)) || uint32(row) >= inode {
			return fmt.Errorf("inode %d: children out of order", row)
		}
		for last, end := "", entry+in.Children.Count; entry < end; entry++ {
			e := &x.Entries[entry]
			if err := x.validateEntry(e, inode, last); err != nil {
				return fmt.Errorf("entry %d: %w", entry, err)
			}
			if last = x.Pool.String(e.Name); e.Inode == inode {
				inode++
			}
		}
	}
	if int(entry) != len(x.Entries) || int(inode) != len(x.Inodes) {
		return errors.New("entries or inodes outside the tree")
	}
	return nil
}

// validateEntry checks an entry where next is the first inode not yet met and
// last the name before it in the directory.
func (x *Index) validateEntry(e *Entry, next uint32, last string) error {
	if !x.Pool.Holds(e.Name) || !x.Pool.Holds(e.Link) {
		return errors.New("a string lies outside the pool")
	}
	name, link := x.Pool.String(e.Name), x.Pool.String(e.Link)
	if !isName(name) {
		return fmt.Errorf("name %q", clip(name))
	}
	if name <= last {
		return fmt.Errorf("name %q out of order", name)
	}
	switch {
	case e.Kind == EntryInode && link == "" && !strings.HasPrefix(name, whiteoutPrefix):
		if e.Inode < next && (e.Inode == 0 || x.Inodes[e.Inode].isDir()) || e.Inode > next || int(e.Inode) >= len(x.Inodes) {
			return fmt.Errorf("inode %d", e.Inode)
		}
	case e.Inode != None:
		return fmt.Errorf("kind %d with an inode", e.Kind)
	case e.Kind == EntryWhiteout && link == "":
	case e.Kind == EntryLowerLink && len(link) <= maxPath && isRelative(link):
	default:
		return fmt.Errorf("kind %d", e.Kind)
	}
	return nil
}

func isName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxName && strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

func isRelative(s string) bool {
	return path.Clean(s) == s && s != "." && s[0] != '/' && s != ".." && !strings.HasPrefix(s, "../")
}

func (x *Index) validateInode(in *Inode) error {
	switch {
	case !x.Pool.Holds(in.Link):
		return errors.New("link outside the pool")
	case in.MtimeNsec >= 1e9 || in.Mode&^(typeMask|permMask) != 0 || in.Flags&^(Implicit|Opaque) != 0:
		return errors.New("time, mode or flags")
	case !in.Xattrs.In(len(x.Xattrs)) || !in.Extents.In(len(x.Extents)):
		return errors.New("xattrs or extents outside their table")
	}
	if err := x.validateXattrs(in.Xattrs); err != nil {
		return err
	}
	kind := in.Mode & typeMask
	if kind != typeRegular && (in.Extents.Count != 0 || in.Addr != 0) || kind != typeDir && in.Flags != 0 {
		return errors.New("data of no file or flags of no directory")
	}
	switch kind {
	case typeRegular:
		return x.validateData(in)
	case typeSymlink:
		if in.Size != int64(in.Link.Len) {
			return errors.New("size of a symlink")
		}
		return checkTarget(x.Pool.String(in.Link))
	case typeDir, typeChar, typeBlock, typeFifo:
		if in.Size != 0 || in.Link.Len != 0 {
			return errors.New("size or target of no file")
		}
		return nil
	}
	return fmt.Errorf("file type %#o", kind)
}

func (x *Index) validateXattrs(r flat.Range) error {
	for i, last := r.First, ""; i < r.First+r.Count; i++ {
		a := x.Xattrs[i]
		if a.Name.Len > maxXattrName || a.Value.Len > maxXattrValue {
			return fmt.Errorf("xattr %d", i)
		}
		name := x.Pool.String(a.Name)
		if name <= last || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("xattr name %q", clip(name))
		}
		last = name
	}
	return nil
}

func (x *Index) validateData(in *Inode) error {
	if in.Size < 0 || in.Size > maxSize || in.Link.Len != 0 {
		return fmt.Errorf("size %d", in.Size)
	}
	if in.Extents.Count == 0 {
		return x.validateRun(in.Addr, in.Size)
	}
	var end int64
	for _, e := range x.Extents[in.Extents.First:][:in.Extents.Count] {
		if e.Off < end || e.Len < 0 || e.Off > in.Size || e.Len > in.Size-e.Off {
			return fmt.Errorf("extent [%d, +%d) of %d bytes after %d", e.Off, e.Len, in.Size, end)
		}
		if err := x.validateRun(e.Addr, e.Len); err != nil {
			return err
		}
		end = e.Off + e.Len
	}
	return nil
}

func (x *Index) validateRun(addr, n int64) error {
	if addr < 0 || addr > x.Info.AddrSize || n > x.Info.AddrSize-addr {
		return fmt.Errorf("data [%d, +%d) outside the address space of %d bytes", addr, n, x.Info.AddrSize)
	}
	return nil
}

// validateSpans checks that spans tile the address space and chunks their
// span, and that a span's bytes lie in the blob, after those of the span before
// it unless all spans need the whole blob.
func (x *Index) validateSpans() error {
	if len(x.Chunks) > maxChunks {
		return limit("chunks of the layer", int64(len(x.Chunks)), maxChunks)
	}
	var addr, off int64
	var chunk uint32
	for i := range x.Spans {
		s := &x.Spans[i]
		switch {
		case s.Addr != addr || s.Len <= 0 || s.Len > x.Info.AddrSize-addr:
			return fmt.Errorf("span %d: addresses [%d, +%d) of %d after %d", i, s.Addr, s.Len, x.Info.AddrSize, addr)
		case s.Len > maxSpan:
			return fmt.Errorf("span %d: %w", i, limit("bytes of a span", s.Len, maxSpan))
		case s.Off < off-x.shared(i) || s.CLen <= 0 || s.Off > x.Info.BlobSize || s.CLen > x.Info.BlobSize-s.Off:
			return fmt.Errorf("span %d: bytes [%d, +%d) of a blob of %d", i, s.Off, s.CLen, x.Info.BlobSize)
		case s.Chunks.First != chunk || s.Chunks.Count == 0 || !s.Chunks.In(len(x.Chunks)):
			return fmt.Errorf("span %d: chunks out of order", i)
		}
		if err := validateChunks(s, x.Chunks[chunk:][:s.Chunks.Count]); err != nil {
			return fmt.Errorf("span %d: %w", i, err)
		}
		addr, chunk = addr+s.Len, chunk+s.Chunks.Count
		if x.seekable() {
			off = s.Off + s.CLen
		}
	}
	if addr != x.Info.AddrSize || int(chunk) != len(x.Chunks) {
		return fmt.Errorf("spans cover %d bytes of %d", addr, x.Info.AddrSize)
	}
	return nil
}

// shared returns how many bytes of the blob span i has in common with the one
// before it.
func (x *Index) shared(i int) int64 {
	if i > 0 && len(x.Checkpoints) > i && x.Checkpoints[i].Bit != 0 {
		return 1
	}
	return 0
}

// validateCheckpoints checks that there is one for each span, or none, and that
// windows lie in their table.
func (x *Index) validateCheckpoints() error {
	switch {
	case len(x.Checkpoints) == 0:
		return nil
	case x.Info.Format != FormatGzip && x.Info.Format != FormatZstd:
		return fmt.Errorf("checkpoints in a layer of format %d", x.Info.Format)
	case len(x.Checkpoints) != len(x.Spans):
		return fmt.Errorf("%d checkpoints for %d spans", len(x.Checkpoints), len(x.Spans))
	}
	for i := range x.Checkpoints {
		c := &x.Checkpoints[i]
		switch {
		case !c.Window.In(len(x.Windows)) || c.Window.Count > maxPackedWindow:
			return fmt.Errorf("checkpoint %d: window outside its table", i)
		case c.Bit > 7 || c.Member > 1 || c.Frame > maxWindow:
			return fmt.Errorf("checkpoint %d: bit %d, member %d, frame %d", i, c.Bit, c.Member, c.Frame)
		}
	}
	return nil
}

// validateFiles checks that digests are in order and belong to files.
func (x *Index) validateFiles() error {
	for i := range x.Files {
		f := &x.Files[i]
		if int(f.Inode) >= len(x.Inodes) || x.Inodes[f.Inode].Mode&typeMask != typeRegular {
			return fmt.Errorf("digest of no file, inode %d", f.Inode)
		}
		if i > 0 && compareFiles(x.Files[i-1], *f) >= 0 {
			return fmt.Errorf("digests of files out of order at %d", i)
		}
	}
	return nil
}

func validateChunks(s *Span, chunks []Chunk) error {
	addr, inner := s.Addr, int64(0)
	for i := range chunks {
		c := &chunks[i]
		if c.Addr != addr || c.Len == 0 || int64(c.Len) > s.Addr+s.Len-addr || int64(c.Inner) < inner {
			return fmt.Errorf("chunk %d: addresses [%d, +%d) after %d, inner offset %d after %d", i, c.Addr, c.Len, addr, c.Inner, inner)
		}
		addr, inner = addr+int64(c.Len), int64(c.Inner)+int64(c.Len)
		if inner > maxInner {
			return limit("decompressed bytes of a span", inner, maxInner)
		}
	}
	if addr != s.Addr+s.Len {
		return fmt.Errorf("chunks cover %d bytes of %d", addr-s.Addr, s.Len)
	}
	return nil
}
