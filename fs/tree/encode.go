package tree

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// Version of the file and numbers of its sections.
const (
	version = 1

	sectionInodes  = 1
	sectionEntries = 2
	sectionExtents = 3
	sectionXattrs  = 4
	sectionLayers  = 5
	sectionPool    = 6
)

func magic() [8]byte { return [8]byte([]byte("peeltree")) }

// Encode returns the tree as a file for Decode.
func (t *Tree) Encode() []byte {
	var e flat.Encoder
	flat.Add(&e, sectionInodes, t.Inodes)
	flat.Add(&e, sectionEntries, t.Entries)
	flat.Add(&e, sectionExtents, t.Extents)
	flat.Add(&e, sectionXattrs, t.Xattrs)
	flat.Add(&e, sectionLayers, t.Layers)
	flat.Add(&e, sectionPool, t.Pool)
	return e.Bytes(magic(), version)
}

// Decode returns a view of an encoded tree. It checks everything that the
// methods of Tree rely on and allocates only the Tree itself; data must be
// aligned to 8 bytes, stay as it is, and outlive the tree.
func Decode(data []byte) (*Tree, error) {
	f, err := flat.Decode(data, magic(), version)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	t := &Tree{}
	var errs [6]error
	t.Inodes, errs[0] = flat.Records[Inode](f, sectionInodes)
	t.Entries, errs[1] = flat.Records[Entry](f, sectionEntries)
	t.Extents, errs[2] = flat.Records[layer.Extent](f, sectionExtents)
	t.Xattrs, errs[3] = flat.Records[layer.Xattr](f, sectionXattrs)
	t.Layers, errs[4] = flat.Records[Layer](f, sectionLayers)
	t.Pool, errs[5] = flat.Records[byte](f, sectionPool)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("tree: %w: %w", flat.ErrCorrupt, err)
	}
	return t, nil
}

// check reports whether the tables have the one form that Merge gives them:
// every range begins where the one before it ended, and every inode appears
// first in the entry after the appearance of the inode before it. So no range
// leaves its table, no directory has two names and there is no cycle, and one
// pass without a table of its own proves it. It sets the size, too.
func (t *Tree) check() error {
	if len(t.Inodes) == 0 || !isDir(t.Inodes[0].Mode) || t.Inodes[0].Parent != 0 {
		return errors.New("no root directory")
	}
	for i, l := range t.Layers {
		if !t.Pool.Holds(l.Blob) || !t.Pool.Holds(l.Claim) || l.AddrSize < 0 {
			return fmt.Errorf("layer %d", i)
		}
	}
	c := checker{Tree: t, seen: 1}
	for row := range t.Inodes {
		if err := c.inode(uint32(row)); err != nil {
			return fmt.Errorf("inode %d: %w", row, err)
		}
	}
	if c.seen != len(t.Inodes) || c.entries != len(t.Entries) || c.extents != len(t.Extents) || c.xattrs != len(t.Xattrs) {
		return errors.New("rows that nothing refers to")
	}
	if c.nlink != c.names {
		return fmt.Errorf("%d links for %d names of files", c.nlink, c.names)
	}
	return nil
}

// checker counts the rows of each table that were referred to so far.
type checker struct {
	*Tree
	seen, entries, extents, xattrs int
	nlink, names                   int // of inodes that are no directories
}

func (c *checker) inode(row uint32) error {
	n := &c.Inodes[row]
	switch {
	case int(row) >= c.seen:
		return errors.New("has no name before its turn")
	case row != 0 && int64(n.Layer) >= int64(len(c.Layers)):
		return errors.New("layer")
	case n.MtimeNsec > 999_999_999:
		return errors.New("time")
	case !c.Pool.Holds(n.Link) || (n.Mode&typeMask == typeSymlink) != (n.Link.Len > 0):
		return errors.New("link target")
	case isDir(n.Mode):
		if n.Size != 0 || n.Extents.Count != 0 {
			return errors.New("directory with data")
		}
		return errors.Join(c.xattrsOf(n), c.children(row))
	case n.Children.Count != 0 || n.Nlink == 0:
		return errors.New("children or links")
	}
	c.nlink += int(n.Nlink)
	return errors.Join(c.data(n), c.xattrsOf(n))
}

// data checks where the bytes of n lie, and adds to the tree's size.
func (c *checker) data(n *Inode) error {
	switch n.Mode & typeMask {
	case typeFile:
	case typeSymlink, typeBlock, typeChar, typeFIFO, typeSocket:
		if n.Size != int64(n.Link.Len) || n.Extents.Count != 0 {
			return errors.New("data in what is no file")
		}
		return nil
	default:
		return fmt.Errorf("mode %#o", n.Mode)
	}
	if n.Size < 0 || n.Addr < 0 || n.Addr > math.MaxInt64-n.Size {
		return errors.New("address")
	}
	c.size = saturated(c.size, n.Size)
	if err := next(&c.extents, n.Extents, len(c.Extents)); err != nil {
		return err
	}
	end := int64(0)
	for _, e := range c.Tree.extents(n) {
		if e.Off < end || e.Len < 0 || e.Addr < 0 || e.Len > n.Size-e.Off || e.Addr > math.MaxInt64-e.Len {
			return errors.New("extents")
		}
		end = e.Off + e.Len
	}
	return nil
}

func (c *checker) xattrsOf(n *Inode) error {
	if err := next(&c.xattrs, n.Xattrs, len(c.Xattrs)); err != nil {
		return err
	}
	last := ""
	for _, x := range c.Xattrs[n.Xattrs.First:][:n.Xattrs.Count] {
		if !c.Pool.Holds(x.Name) || !c.Pool.Holds(x.Value) || c.Pool.String(x.Name) <= last {
			return errors.New("extended attributes")
		}
		last = c.Pool.String(x.Name)
	}
	return nil
}

func (c *checker) children(row uint32) error {
	n := &c.Inodes[row]
	if err := next(&c.entries, n.Children, len(c.Entries)); err != nil {
		return err
	}
	last, nlink := "", uint32(2)
	for _, e := range c.Children(row) {
		if !c.Pool.Holds(e.Name) {
			return errors.New("name outside of the file")
		}
		name := c.Pool.String(e.Name)
		if name <= last || name == "." || name == ".." || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("name %q", name)
		}
		last = name
		if err := c.entry(e, row); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if isDir(e.Type) {
			nlink++
		}
	}
	if nlink != n.Nlink {
		return errors.New("links of a directory")
	}
	return nil
}

// entry checks what an entry of directory dir refers to.
func (c *checker) entry(e Entry, dir uint32) error {
	if int64(e.Inode) > int64(c.seen) || int64(e.Inode) >= int64(len(c.Inodes)) {
		return errors.New("inode out of turn")
	}
	n := &c.Inodes[e.Inode]
	if e.Type != n.Mode&typeMask {
		return errors.New("type")
	}
	if !isDir(n.Mode) {
		c.names++
	}
	if int(e.Inode) < c.seen {
		if isDir(n.Mode) {
			return errors.New("second name of a directory")
		}
		return nil
	}
	if n.Parent != dir {
		return errors.New("parent")
	}
	c.seen++
	return nil
}

// next checks that r begins where the ranges before it ended, at *end.
func next(end *int, r flat.Range, table int) error {
	if !r.In(table) || int(r.First) != *end && r.Count > 0 {
		return errors.New("range")
	}
	*end += int(r.Count)
	return nil
}

func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
