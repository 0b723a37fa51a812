package layer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
)

// Prove compares claimed with the layer itself: what a pass over it found, and
// its tar, the address space of streamed. Then it reads all of blob, span by
// span as claimed has them, and compares every byte that a file would show. It
// returns nil if claimed is right, ErrVerify with the first difference in
// words, or the error of ctx, blob or tar. It keeps one span in memory, and some
// bytes for each file.
func Prove(ctx context.Context, claimed *Index, blob Source, streamed *Index, tar io.ReaderAt) error {
	p := &proof{
		claimed: claimed, streamed: streamed, tar: tar,
		to: noRows(len(claimed.Inodes)), from: noRows(len(streamed.Inodes)),
	}
	if err := p.run(ctx, blob); err != nil {
		return fmt.Errorf("layer %s: %w", streamed.Blob(), err)
	}
	return nil
}

func noRows(n int) []uint32 { return slices.Repeat([]uint32{None}, n) }

// proof walks through both indexes in step.
type proof struct {
	claimed, streamed *Index
	tar               io.ReaderAt
	to, from          []uint32  // rows of the same inode in the other index; None if not met so far
	runs              []fileRun // of the claimed files' data
	buf               []byte
}

func (p *proof) run(ctx context.Context, blob Source) error {
	c, s := p.claimed, p.streamed
	switch {
	case c.Blob() != s.Blob() || c.Info.BlobSize != s.Info.BlobSize:
		return p.differs("layer", fmt.Sprintf("%s of %d bytes", c.Blob(), c.Info.BlobSize), fmt.Sprintf("%s of %d bytes", s.Blob(), s.Info.BlobSize))
	case c.isTar() && c.Info.AddrSize > s.Info.AddrSize:
		return p.differs("bytes of the tar", c.Info.AddrSize, s.Info.AddrSize)
	}
	if err := p.inode(".", 0, 0); err != nil {
		return err
	}
	if err := p.directory(ctx, "", 0, 0); err != nil {
		return err
	}
	if err := p.files(); err != nil {
		return err
	}
	return p.spans(ctx, blob)
}

// isTar reports whether the address space is the layer's tar.
func (x *Index) isTar() bool {
	return x.Info.Format != FormatEstargz && x.Info.Format != FormatZstdChunked
}

func (p *proof) differs(what string, claimed, real any) error {
	return fmt.Errorf("%w: %s: the index claims %v, the layer has %v", ErrVerify, what, claimed, real)
}

func (p *proof) differsAt(path, what string, claimed, real any) error {
	return p.differs(fmt.Sprintf("%q: %s", path, what), claimed, real)
}

// directory compares the entries of the directory at path, "" being the root.
func (p *proof) directory(ctx context.Context, path string, c, s uint32) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	a, b := p.claimed.entries(c), p.streamed.entries(s)
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && p.claimed.Name(a[0]) < p.streamed.Name(b[0]):
			return p.differsAt(join(path, p.claimed.Name(a[0])), "entry", a[0].Kind.words(), "none")
		case len(a) == 0 || p.claimed.Name(a[0]) > p.streamed.Name(b[0]):
			if !p.hidden(path, b[0]) {
				return p.differsAt(join(path, p.streamed.Name(b[0])), "entry", "none", b[0].Kind.words())
			}
			b = b[1:]
			continue
		}
		if err := p.entry(ctx, join(path, p.claimed.Name(a[0])), a[0], b[0]); err != nil {
			return err
		}
		a, b = a[1:], b[1:]
	}
	return nil
}

func (p *proof) entry(ctx context.Context, path string, a, b Entry) error {
	if a.Kind != b.Kind {
		return p.differsAt(path, "entry", a.Kind.words(), b.Kind.words())
	}
	if at, bt := p.claimed.Pool.String(a.Link), p.streamed.Pool.String(b.Link); at != bt {
		return p.differsAt(path, "target of the hard link", quote(at), quote(bt))
	}
	if a.Kind != EntryInode {
		return nil
	}
	if err := p.inode(path, a.Inode, b.Inode); err != nil {
		return err
	}
	if p.claimed.Inodes[a.Inode].isDir() {
		return p.directory(ctx, path, a.Inode, b.Inode)
	}
	return nil
}

// hidden reports whether an entry is one of those files that converters add to
// the tar and that a table of contents does not show.
func (p *proof) hidden(path string, e Entry) bool {
	if p.claimed.isTar() || path != "" || e.Kind != EntryInode || p.streamed.Inodes[e.Inode].Mode&typeMask != typeRegular {
		return false
	}
	switch p.streamed.Name(e) {
	case estargz.TOCTarName, estargz.PrefetchLandmark, estargz.NoPrefetchLandmark:
		return true
	}
	return false
}

// inode compares the inodes that both indexes have at path.
func (p *proof) inode(path string, c, s uint32) error {
	if p.to[c] == s {
		return nil
	}
	if p.to[c] != None || p.from[s] != None {
		return p.differsAt(path, "hard link", p.claimed.names(c, path), p.streamed.names(s, path))
	}
	p.to[c], p.from[s] = s, c
	a, b := &p.claimed.Inodes[c], &p.streamed.Inodes[s]
	if err := p.attributes(path, a, b); err != nil {
		return err
	}
	if err := p.xattrs(path, a, b); err != nil {
		return err
	}
	if a.Mode&typeMask != typeRegular {
		return nil
	}
	return p.data(path, c, b)
}

func (p *proof) attributes(path string, a, b *Inode) error {
	switch at, bt := p.claimed.Pool.String(a.Link), p.streamed.Pool.String(b.Link); {
	case a.Mode&typeMask != b.Mode&typeMask:
		return p.differsAt(path, "type", typeName(a.Mode), typeName(b.Mode))
	case a.Mode != b.Mode:
		return p.differsAt(path, "mode", octal(a.Mode&permMask), octal(b.Mode&permMask))
	case a.UID != b.UID || a.GID != b.GID:
		return p.differsAt(path, "owner", fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID))
	case at != bt:
		return p.differsAt(path, "target of the symlink", quote(at), quote(bt))
	case a.Size != b.Size:
		return p.differsAt(path, "size", a.Size, b.Size)
	case !p.sameTime(a, b):
		return p.differsAt(path, "modification time", timeOf(a), timeOf(b))
	case a.RdevMajor != b.RdevMajor || a.RdevMinor != b.RdevMinor:
		return p.differsAt(path, "device", fmt.Sprintf("%d:%d", a.RdevMajor, a.RdevMinor), fmt.Sprintf("%d:%d", b.RdevMajor, b.RdevMinor))
	case a.Flags != b.Flags:
		return p.differsAt(path, "directory", a.Flags.words(), b.Flags.words())
	}
	return nil
}

// sameTime allows tables of contents whole seconds: eStargz's are rounded,
// others cut off.
func (p *proof) sameTime(a, b *Inode) bool {
	if a.MtimeSec == b.MtimeSec && a.MtimeNsec == b.MtimeNsec {
		return true
	}
	if p.claimed.isTar() || a.MtimeNsec != 0 {
		return false
	}
	return a.MtimeSec == b.MtimeSec || a.MtimeSec == b.MtimeSec+1 && b.MtimeNsec >= 5e8
}

func (p *proof) xattrs(path string, a, b *Inode) error {
	x, y := p.claimed.Xattrs[a.Xattrs.First:][:a.Xattrs.Count], p.streamed.Xattrs[b.Xattrs.First:][:b.Xattrs.Count]
	for len(x) > 0 || len(y) > 0 {
		var name, other string
		if len(x) > 0 {
			name = p.claimed.Pool.String(x[0].Name)
		}
		if len(y) > 0 {
			other = p.streamed.Pool.String(y[0].Name)
		}
		switch {
		case len(y) == 0 || len(x) > 0 && name < other:
			return p.differsAt(path, "xattr "+quote(name), quote(p.claimed.Pool.String(x[0].Value)), "none")
		case len(x) == 0 || name > other:
			return p.differsAt(path, "xattr "+quote(other), "none", quote(p.streamed.Pool.String(y[0].Value)))
		}
		if v, w := p.claimed.Pool.String(x[0].Value), p.streamed.Pool.String(y[0].Value); v != w {
			return p.differsAt(path, "xattr "+quote(name), quote(v), quote(w))
		}
		x, y = x[1:], y[1:]
	}
	return nil
}

// files compares the digests of files' contents.
func (p *proof) files() error {
	known := make(map[uint32][32]byte, len(p.streamed.Files))
	for _, f := range p.streamed.Files {
		known[f.Inode] = f.SHA256
	}
	for _, f := range p.claimed.Files {
		real, ok := known[p.to[f.Inode]]
		switch {
		case !ok:
			return p.differsAt(p.claimed.path(f.Inode, ""), "digest", sha256Digest(f.SHA256), "none")
		case real != f.SHA256:
			return p.differsAt(p.claimed.path(f.Inode, ""), "digest", sha256Digest(f.SHA256), sha256Digest(real))
		}
	}
	return nil
}

// entries returns the entries of the directory in a row.
func (x *Index) entries(row uint32) []Entry {
	r := x.Inodes[row].Children
	return x.Entries[r.First:][:r.Count]
}

// path returns a path of the inode in a row, "" if it has none but the one not
// asked for. It searches for it.
func (x *Index) path(row uint32, but string) string {
	for dir := range x.Inodes {
		for _, e := range x.entries(uint32(dir)) {
			if e.Kind != EntryInode || e.Inode != row {
				continue
			}
			if found := join(x.path(uint32(dir), ""), x.Name(e)); found != but {
				return found
			}
		}
	}
	return ""
}

// names says what the inode in a row is at path.
func (x *Index) names(row uint32, path string) string {
	if other := x.path(row, path); other != "" {
		return "another name of " + quote(other)
	}
	return "a file of its own"
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }

func octal(mode uint32) string { return fmt.Sprintf("%#o", mode) }

func timeOf(in *Inode) string {
	return time.Unix(in.MtimeSec, int64(in.MtimeNsec)).UTC().Format(time.RFC3339Nano)
}

func (k EntryKind) words() string {
	switch k {
	case EntryInode:
		return "one of its own"
	case EntryWhiteout:
		return "a whiteout"
	case EntryLowerLink:
		return "a hard link to a lower layer"
	}
	return "unknown"
}

func (f InodeFlags) words() string {
	words := "one with an entry"
	if f&Implicit != 0 {
		words = "one without an entry"
	}
	if f&Opaque != 0 {
		words += ", opaque"
	}
	return words
}

func typeName(mode uint32) string {
	switch mode & typeMask {
	case typeRegular:
		return "a file"
	case typeDir:
		return "a directory"
	case typeSymlink:
		return "a symlink"
	case typeChar:
		return "a character device"
	case typeBlock:
		return "a block device"
	case typeFifo:
		return "a FIFO"
	}
	return octal(mode)
}
