// Package ztoc reads and writes what SOCI keeps beside an image: zTOCs, which
// make a gzip or tar layer readable at random, and the index that ties them to
// layers.
//
// # Life cycle
//
// [ParseIndex] reads a SOCI index manifest, of either version, and says which
// zTOC belongs to which layer; [Decode] reads a zTOC. [Build] makes the zTOC of
// a layer in one pass over its blob, [TOC.Encode] and [Index.Encode] write both
// for SOCI's own tools. Nothing here fetches or stores anything.
//
// # Format
//
// A zTOC is a flatbuffer with the entries of the layer's tar and the spans
// between which its compressed stream can be entered. [Build] finds what SOCI's
// builder finds, and Encode writes what SOCI's tools write, byte for byte. Some
// properties of the format surprise:
//
//   - The gzip header belongs to no span. The first one begins behind the
//     header; in checkpoints of layout 1, at byte 10 however long the header
//     is. Whoever inflates the first span reads from byte 0 on, and hashes
//     from [Span.Off] on.
//   - A span that begins within a byte shares this byte with its predecessor,
//     and both digests cover it. A span that begins with a later member of a
//     gzip file begins behind that member's header.
//   - The archive is taken to end behind the two blocks of zeros that end a
//     tar. Padding that follows counts in the compressed size only, so the
//     last span may inflate to more than [Span.Len].
//
// # Trust
//
// A zTOC is a claim of whoever made it. Decode proves that it is coherent:
// spans tile both archives, entries follow each other as in a tar. Only
// inflating the whole layer proves more. A digest of a span, being that of
// compressed bytes, proves them before they are inflated.
//
// # Concurrency
//
// Everything is a value. Build runs on its caller's goroutine.
//
// # Errors
//
// [ErrFormat]: the bytes break the format or a limit, or the layer cannot be
// described in it; the text says where. All others come from the blob given to
// Build, its context, or the inflate package.
//
// # Limits
//
// A zTOC of 512 MiB, a million entries, spans of 128 MiB on either side, an
// archive of 1 TiB, strings that together are at most four times as long as
// the zTOC, an index of 4 MiB. A decoded TOC shares memory with the bytes that
// were given to Decode, for the windows of its spans.
package ztoc
