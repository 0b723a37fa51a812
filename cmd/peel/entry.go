package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/peelfs/peel/fs/tree"
)

// File types as stat(2) has them, on every operating system.
const (
	typeMask    = 0o170000
	typeSocket  = 0o140000
	typeSymlink = 0o120000
	typeFile    = 0o100000
	typeBlock   = 0o060000
	typeDir     = 0o040000
	typeChar    = 0o020000
	typeFIFO    = 0o010000

	setUID = 0o4000
	setGID = 0o2000
	sticky = 0o1000
)

// entry is what programs get to know of a path of an image. Paths and targets
// that are not UTF-8 also come as bytes (base64).
type entry struct {
	Path        string            `json:"path"`
	PathBytes   []byte            `json:"path_bytes,omitempty"`
	Type        string            `json:"type"`
	Mode        string            `json:"mode"` // permission bits, octal
	UID         uint32            `json:"uid"`
	GID         uint32            `json:"gid"`
	Size        int64             `json:"size"` // bytes
	Mtime       string            `json:"mtime"`
	Links       uint32            `json:"nlink"`
	Inode       uint64            `json:"ino"`
	Target      *string           `json:"target,omitempty"` // of a symlink
	TargetBytes []byte            `json:"target_bytes,omitempty"`
	Device      string            `json:"device,omitempty"` // major:minor
	Xattrs      map[string][]byte `json:"xattrs,omitempty"`
	Layer       string            `json:"layer"` // digest of the one it comes from
}

// view looks into an opened image.
type view struct {
	*tree.Tree
	layers []string // digests
}

func (s *session) view() *view {
	v := &view{Tree: s.image.Tree}
	for _, d := range s.image.Manifest.Layers {
		v.layers = append(v.layers, d.Digest.String())
	}
	return v
}

func (v *view) entry(path string, row uint32) entry {
	n := &v.Inodes[row]
	e := entry{
		Path: path, PathBytes: unlessUTF8(path), Type: typeName(n.Mode), Mode: fmt.Sprintf("%04o", n.Mode&0o7777),
		UID: n.UID, GID: n.GID, Size: n.Size, Mtime: mtime(n).Format(time.RFC3339Nano),
		Links: n.Nlink, Inode: uint64(row) + 1,
	}
	if int(n.Layer) < len(v.layers) {
		e.Layer = v.layers[n.Layer]
	}
	switch n.Mode & typeMask {
	case typeSymlink:
		target := strings.Clone(v.Link(row))
		e.Target, e.TargetBytes = &target, unlessUTF8(target)
	case typeChar, typeBlock:
		e.Device = device(n)
	}
	for _, x := range v.XattrsOf(row) {
		if e.Xattrs == nil {
			e.Xattrs = map[string][]byte{}
		}
		e.Xattrs[v.Pool.String(x.Name)] = []byte(v.Pool.String(x.Value))
	}
	return e
}

func unlessUTF8(s string) []byte {
	if utf8.ValidString(s) {
		return nil
	}
	return []byte(s)
}

func mtime(n *tree.Inode) time.Time { return time.Unix(n.MtimeSec, int64(n.MtimeNsec)).UTC() }

func device(n *tree.Inode) string { return fmt.Sprintf("%d:%d", n.RdevMajor, n.RdevMinor) }

func typeName(mode uint32) string {
	switch mode & typeMask {
	case typeDir:
		return "directory"
	case typeSymlink:
		return "symlink"
	case typeFile:
		return "file"
	case typeChar:
		return "character device"
	case typeBlock:
		return "block device"
	case typeFIFO:
		return "fifo"
	case typeSocket:
		return "socket"
	}
	return "unknown"
}

// modeString is the mode as ls -l writes it.
func modeString(mode uint32) string {
	b := []byte("?rwxrwxrwx")
	switch mode & typeMask {
	case typeDir:
		b[0] = 'd'
	case typeSymlink:
		b[0] = 'l'
	case typeFile:
		b[0] = '-'
	case typeChar:
		b[0] = 'c'
	case typeBlock:
		b[0] = 'b'
	case typeFIFO:
		b[0] = 'p'
	case typeSocket:
		b[0] = 's'
	}
	for i := range 9 {
		if mode>>(8-i)&1 == 0 {
			b[1+i] = '-'
		}
	}
	for _, s := range []struct {
		bit    uint32
		at     int
		letter byte
	}{{setUID, 3, 's'}, {setGID, 6, 's'}, {sticky, 9, 't'}} {
		if mode&s.bit == 0 {
			continue
		}
		if b[s.at] == '-' {
			s.letter -= 'a' - 'A'
		}
		b[s.at] = s.letter
	}
	return string(b)
}

func isDir(mode uint32) bool { return mode&typeMask == typeDir }
