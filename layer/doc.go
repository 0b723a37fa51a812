// Package layer makes one layer of an image readable at random.
//
// # Life cycle
//
// An [Index] says what paths a layer has and which spans of its blob hold their
// data. [ReadIndex] makes one from the table of contents of an eStargz or
// zstd:chunked layer, [FromZTOC] from SOCI's, [Unpack] from what Pack made of an
// index elsewhere. Any other layer is indexed by [Stream], in one pass that also
// fills the layer's [Store]: download and hash, decode, hash and stage, parse,
// side by side. A pass that is cut off leaves notes, and the next one goes on.
// It may also keep nothing, for blobs that lie on this machine, and take the blob
// for one file, as those of artifacts.
// An index is stored with Encode and used again with [Decode], which maps it and
// checks it, and parses nothing. [New] joins an index with a [Source] and a
// [Store] to a [Layer], whose ReadAt is the only way to file data: what is not
// in the store is planned, fetched, decoded, verified, stored and returned. Fill
// does so with all of it. [InPlace] is the store of a layer whose address space is
// a blob on this machine. Close ends what is under way.
//
// # Traffic
//
// A read that misses something fetches it at once, together with what lies between
// and what a forecast expects next, and begins to fetch what is expected later.
// [Prefetch] does so with an order that somebody knows, Fill with all. Each fetch
// has a class (internal/priority): demand, prefetch, fill. The layers of a process
// share a [Traffic]: memory for spans on their way and processors, of which lower
// classes get a part that demand never needs to wait for, and the ledger of what
// guesses may cost. Bytes of a request are not read before there is memory for them,
// so that a slow disk slows the network down. A fetch becomes as urgent as the reader
// who comes to wait for it. [Layer.Stats] tells what all this was good for.
//
// # Guesses
//
// A forecast knows three grounds for a guess: a reader goes through the layer in
// sequence or by strides, and will go on; a span lies in the directory of one that is
// read, or in one beside it, and is called alike; a file that is read, or is likely to
// be, mentions it by name (package mention), in whatever layer of the Traffic. How
// likely the latter two are is learned from how those before turned out. The ledger
// bounds what guesses may cost: the bytes that were guessed and not read are never more
// than a slack and a share of those that were read, less for weaker grounds. What
// Prefetch foretold, and layers that are read whole, lead to no guesses; neither does
// the content of spans that several files share.
//
// # Checkpoints
//
// Spans of a plain gzip layer begin between DEFLATE blocks, with the window that
// the block refers to (package inflate), or where a member begins; those of a
// zstd layer where a frame begins, or a block that needs nothing of what came
// before (package zstdseek); those of a tar anywhere. A layer that cannot be
// entered for 32 MiB is resident: what is missing of it is read from its
// beginning, in one pass for all who wait. So is any layer whose source has no
// byte ranges, for a minute after it said so.
//
// # Addresses
//
// The uncompressed bytes of a layer laid end to end are its address space; for
// a streamed layer that is its tar. Files are runs of addresses, spans tile the
// space, and each consists of chunks that have a digest. Spans are numbered in
// the order of the blob, so that neighbours in one are neighbours in the other.
//
// # Rules of a layer
//
// Names are cleaned, and refused if they leave the root. The last of several
// entries of one name wins; directories merge. Missing parents are made, and
// marked, since a lower layer's attributes win over made-up ones. A parent that
// is a symlink of the same layer is followed within the root, as extractors do;
// any other that is no directory is replaced. Whiteouts act on lower layers
// only, whatever their place in the tar. A hard link shares the inode that its
// target has at that point; a target that comes later is found at the end, and
// one that never comes is left to the layers below. This is what umoci and
// containerd leave on disk.
//
// # Trust
//
// A table of contents is believed once the digest in the manifest matches it,
// and is then a claim of whoever built the image, as is an index that somebody
// hands out; a streamed layer is proved by the digests of blob and tar, and
// [Prove] compares a claim with the whole layer. SOCI has digests of compressed
// bytes only: its windows are believed when the span before ends with them, so
// that one wrong window is found, though not two neighbours that lie together. No
// byte reaches a reader or a store before the digest of its chunk has matched. Bytes
// that prove wrong, or end early, are asked for eight times more with growing
// pauses, and so are tables of contents; a whole blob is streamed three times.
//
// # Reuse
//
// A span that is missing is looked for in other layers ([Donor]) before the
// source is asked: once for a layer, by the digests of chunks and of files, which
// each index has in order. So a layer of one form can take what another one has
// of the same files. What is taken is verified like what is fetched, and a
// donor's index is not even checked. A span is taken whole or not at all; those
// of a streamed layer are found where the tar is the same from its beginning
// on, or within a file that is longer than they are.
//
// # Concurrency
//
// An Index is immutable and its methods may be called concurrently, as may
// those of a Layer. A Builder belongs to one goroutine. Stream runs four
// goroutines and waits for all of them. Where several processes share a store
// that is a [Sharer], each claims the spans it is about to fetch, and waits for
// what others have claimed, never while it holds claims itself.
//
// # Errors
//
// [ErrVerify]: bytes have another digest than they should. [ErrMalformed]: the
// right bytes break their format or a limit. [ErrPlain]: there is no table of
// contents, in which case Stream is the way. All others are the context's, the
// source's or the store's own. Messages begin with the layer's digest.
//
// # Limits
//
// Everything in a layer is bounded; the table is in limits.go. The most telling
// ones: a million entries, paths of 4096 bytes, spans of 128 MiB, tables of
// contents of 150 MiB, an address space of 1 TiB, and 2000 decompressed bytes
// for each compressed one after the first 64 MiB.
package layer
