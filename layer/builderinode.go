package layer

import (
	"errors"
	"fmt"
	"strings"
)

// Reasons for ErrMalformed.
var (
	errEscape       = errors.New("leaves the root")
	errNUL          = errors.New("holds a NUL byte")
	errRootType     = errors.New("the root is not a directory")
	errWhiteoutName = errors.New("whiteout without a name")
	errLinkDir      = errors.New("hard link to a directory")
	errLinkCycle    = errors.New("hard links form a cycle")
	errLinkEmpty    = errors.New("link without a target")
	errLoop         = fmt.Errorf("more than %d symlinks on the way", maxSymlinks)
)

func limit(what string, value, most int64) error {
	return fmt.Errorf("%s: %d exceed the limit of %d", what, value, most)
}

func clip(s string) string {
	if len(s) > maxName {
		return s[:maxName] + "…"
	}
	return s
}

// inode makes an inode of the header, checked against the limits.
func (b *Builder) inode(h *Header) (buildInode, error) {
	in := buildInode{xattrs: h.Xattrs, Inode: Inode{
		Mode: h.Mode & (typeMask | permMask), UID: h.UID, GID: h.GID,
		MtimeSec: h.MtimeSec, MtimeNsec: h.MtimeNsec,
	}}
	if h.MtimeNsec >= 1e9 {
		return in, limit("nanoseconds", int64(h.MtimeNsec), 1e9-1)
	}
	if err := b.checkXattrs(h.Xattrs); err != nil {
		return in, err
	}
	switch h.Mode & typeMask {
	case typeRegular:
		return in, b.setData(&in, h)
	case typeSymlink:
		in.link, in.Size = h.Link, int64(len(h.Link))
		return in, checkTarget(h.Link)
	case typeChar, typeBlock:
		in.RdevMajor, in.RdevMinor = h.RdevMajor, h.RdevMinor
	case typeDir, typeFifo:
	default:
		return in, fmt.Errorf("file type %#o", h.Mode&typeMask)
	}
	return in, nil
}

func checkTarget(link string) error {
	switch {
	case link == "":
		return errLinkEmpty
	case len(link) > maxLink:
		return limit("bytes of a symlink's target", int64(len(link)), maxLink)
	case strings.IndexByte(link, 0) >= 0:
		return fmt.Errorf("symlink's target %w", errNUL)
	}
	return nil
}

// setData takes over where a file's data lies. A file without any data but of
// some size gets one extent of no length, since no extent at all means one run.
func (b *Builder) setData(in *buildInode, h *Header) error {
	if h.Size < 0 || h.Size > maxSize {
		return fmt.Errorf("size %d", h.Size)
	}
	in.Size = h.Size
	if h.Extents == nil {
		if h.Size > 0 {
			in.Addr = h.Addr
		}
		return nil
	}
	if len(h.Extents) == 1 && h.Extents[0].Off == 0 && h.Extents[0].Len == h.Size {
		in.Addr = h.Extents[0].Addr
		return nil
	}
	in.extents = h.Extents
	if len(h.Extents) == 0 && h.Size > 0 {
		in.extents = []Extent{{}}
	}
	if b.extents += len(in.extents); b.extents > maxExtents {
		return limit("extents of the layer", int64(b.extents), maxExtents)
	}
	return nil
}

func (b *Builder) checkXattrs(xattrs map[string]string) error {
	var total int64
	for name, value := range xattrs {
		switch {
		case name == "":
			return errors.New("xattr without a name")
		case len(name) > maxXattrName:
			return limit("bytes of an xattr's name", int64(len(name)), maxXattrName)
		case strings.IndexByte(name, 0) >= 0:
			return fmt.Errorf("xattr's name %w", errNUL)
		case len(value) > maxXattrValue:
			return limit("bytes of xattr "+name, int64(len(value)), maxXattrValue)
		}
		if total += int64(len(name) + len(value)); total > maxXattrs {
			return limit("bytes of xattrs", total, maxXattrs)
		}
	}
	return b.count(0, total)
}
