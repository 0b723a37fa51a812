// Package zstdseek decompresses zstd, and finds where it can begin in the
// middle of it.
//
// # Life cycle
//
// A [Reader] made by [NewReader] decompresses a stream of zstd frames (RFC
// 8878) from its beginning. Each Read ends at a candidate at the latest;
// Boundary tells its [Place]. Once Read has returned io.EOF, Places returns
// those candidates that hold. A [Decoder] then decodes what lies between two of
// them, from those bytes alone.
//
// # Places
//
// The beginning of a frame always holds. Inside a frame, the beginning of a
// block holds if the blocks up to the next place refer to no output, no entropy
// table and no offset from before it. Only decoding tells: at a candidate, a
// second decoder begins that sees nothing of what came before, and each block
// must come out of it as it comes out of the first. If one does not, the
// candidate is dropped and a later block is tried. Models, media, archives and
// whatever else does not compress give such places, as do encoders that begin
// anew now and then; typical text gives none, and its stream can then be
// entered at frames only.
//
// Decoding twice costs time. What failed candidates may cost is a share of what
// the stream itself costs, so that it stays readable at nearly full speed.
//
// # Concurrency
//
// A Reader or a Decoder belongs to one goroutine at a time. Neither starts any.
//
// # Errors
//
// [ErrFormat]: the stream is malformed, exceeds a limit or needs a dictionary;
// io.ErrUnexpectedEOF: it is cut short. All others are the source's own. The
// checksums of frames are verified by a Reader, and not by a Decoder, which
// often does not see the whole frame: its caller has digests.
//
// # Limits
//
// Frames may ask for a window of 128 MiB, which is what zstd --long=27 does. A
// Reader needs the window of the largest frame so far, eight times the least
// length of stretches, and about 8 MiB. A Decoder needs a copy of the compressed
// bytes.
package zstdseek
