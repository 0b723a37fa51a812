// Package bench asks: is a peel mount, once its bytes are on disk, as fast as
// the kernel's overlayfs on the extracted files?
//
// "make bench" runs it: both mounts show the same tree of real Debian packages
// (and one large file), every measurement is taken from both in turn, in the
// same run, several rounds. Cold means: all bytes in the local store, page,
// dentry and inode caches dropped. The figures are written as a table.
package bench
