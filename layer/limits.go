package layer

import "fmt"

// Limits on what a layer may hold. They are generous to real images and small
// enough that a hostile one cannot exhaust a machine. A layer that exceeds one
// is refused with ErrMalformed.
const (
	maxEntries      = 1_000_000     // names and directories of a layer, implied ones and the root included
	maxChunks       = 4 << 20       // chunks of a layer
	maxExtents      = 4 << 20       // extents of all files of a layer
	maxName         = 255           // bytes of a path component; NAME_MAX
	maxPath         = 4096          // bytes of a path; PATH_MAX
	maxLink         = 4095          // bytes of a symlink's target; PATH_MAX without the NUL
	maxDepth        = 2048          // directories above an entry
	maxSymlinks     = 40            // symlinks followed to find one parent directory; as ELOOP of Linux
	maxSteps        = 64 << 20      // path components looked up while a layer is built
	maxXattrName    = 255           // bytes; XATTR_NAME_MAX
	maxXattrValue   = 64 << 10      // bytes; XATTR_SIZE_MAX
	maxXattrs       = 256 << 10     // bytes of names and values of one inode
	maxStrings      = 1 << 30       // bytes of all names, targets and attributes of a layer
	maxAddr         = 1 << 40       // bytes of a layer's address space
	maxSpan         = 128 << 20     // bytes of a span
	maxInner        = 256 << 20     // decompressed bytes up to the end of a span's last chunk
	maxTOC          = 150 << 20     // compressed bytes of a table of contents; as containers/storage has it
	maxTOCJSON      = 512 << 20     // decompressed bytes of a table of contents
	maxPackedWindow = 64 << 10      // bytes of a gzip window, packed
	maxWindow       = 128 << 20     // bytes of a zstd frame's window, what zstd --long=27 and --ultra ask for
	maxRatio        = 2000          // decompressed bytes per compressed byte; DEFLATE cannot exceed 1032
	freeRatio       = 64 << 20      // decompressed bytes to which maxRatio does not apply
	maxID           = 1<<32 - 2     // user and group ids; chown(2) reads the highest as "leave"
	maxDevice       = 1<<32 - 1     // major and minor numbers
	maxSize         = 1<<63 - 1<<20 // bytes of a file, so that sums with offsets cannot overflow
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
