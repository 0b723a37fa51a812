// Package inflate decompresses gzip, and can begin in the middle of it.
//
// # Life cycle
//
// A [Reader] made by [NewReader] reads a gzip stream from its beginning. Each
// Read ends where a block of DEFLATE (RFC 1951) ends, at the latest. Boundary
// then tells the [Place], which is all that Resume needs to begin there again,
// apart from the window: the output before the place that later output refers
// to. To keep places, call Mark at one, read on for [WindowSize] bytes at
// least, and take its window from Marked, without the bytes that nothing refers
// to. A [Packer] compresses windows for keeping and [Unpack] undoes that.
//
// # Places
//
// A place lies behind the end of each block that is not the last of its member,
// with up to seven bits of its first byte belonging to the block before; and at
// the first byte of each gzip member (RFC 1952), where no window is needed.
// A block without output has one as well, which makes Read return 0, nil: use
// io.ReadFull or a loop, not bufio. The offset of a place is exact whatever has
// been read ahead from the source.
//
// # What is accepted
//
// Exactly what compress/gzip accepts, limits included. Checksum and length of a
// member are checked if it is read from its beginning. Those of a member entered
// in its middle cannot be; the caller has digests for that.
//
// # Concurrency
//
// A Reader or a Packer belongs to one goroutine at a time. Neither starts any.
//
// # Errors
//
// [ErrFormat]: the stream is malformed; io.ErrUnexpectedEOF: it is cut short.
// All others are the source's own. What was decompressed before an error is
// returned before it.
//
// # Limits
//
// A Reader has a fixed size of about 212 KiB, and 64 KiB more once Mark was
// called. Reading allocates nothing.
package inflate
