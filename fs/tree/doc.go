// Package tree merges the layers of an image into one table of inodes and
// directory entries, and looks paths, attributes and bytes up in it. It knows
// neither FUSE nor networks and builds wherever Go does.
//
// Life cycle: [Merge] makes a [Tree] from layer indexes, [Tree.Encode] turns
// it into a file, [Decode] gives it back as a view of the mapped bytes without
// parsing; the mapping must outlive the Tree and every string taken from it.
// A cached Tree is good for indexes that it [Tree.Fits].
//
// Rows: an inode's row number is its identity (FUSE: node id = row + 1). Rows
// are allotted breadth first, children in byte order of name, hard links
// sharing one row across layers too. The same layers always give the same
// bytes, so rows mean the same after a restart.
//
// Merging (OCI image specification, layer.md): a later layer wins. Two
// directories unite, the later one's attributes replacing the earlier's unless
// no tar entry described it; anything else replaces wholly. A whiteout hides
// the name of lower layers, an opaque directory all names of lower layers,
// never names of the same layer.
//
// Symlinks of lower layers are treated as umoci 0.4.7 does, and containerd and
// docker alike: a directory that a tar entry describes replaces the symlink,
// but what a layer has below a directory that none describes goes where the
// symlink leads, within the root; the directories missing there are made. So
// do whiteouts, opaque markers and the parents of a hard link's target. The
// order within a tar is not known here: what lies behind no symlink counts as
// coming first, then the directories behind symlinks by path. A hard link
// names the layer's own file or what the lower layers showed before this one
// applied; a last element that is a symlink is not followed.
//
// Concurrency: a Tree is immutable; everything may be called by many
// goroutines. A file opened through [FS] has an offset of its own, so Read and
// Seek belong to one goroutine; ReadAt does not.
//
// Errors: [ErrMalformed] from Merge names the layer and path; Decode reports
// flat.ErrVersion or flat.ErrCorrupt, upon which the caller merges again.
// Looking paths up reports [ErrNotExist], [ErrNotDir] or [ErrLoop]. Rows and
// ranges were checked when the Tree was made: methods that take a row panic
// only if the caller invented it.
//
// Limits: 4 194 304 names, 1 GiB of strings, 16 777 216 extents and as many
// xattrs in an image; 40 symlinks in resolving one path, also in merging, and
// 2048 directories deep where they lead; 1 GiB for a file read whole through
// FS.
package tree
