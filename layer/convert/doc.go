// Package convert writes layers in the formats that can be read lazily:
// eStargz and zstd:chunked.
//
// # Life cycle
//
// [Uncompress] makes the tar of a layer's blob; [Layer] reads a tar whole,
// writes the converted blob and returns what a manifest has to say of it. The
// same tar and [Options] give the same bytes, with the same version of this
// program, on any machine. Whoever calls checks the digests of what is read and
// takes nothing of what was written for done before Layer has returned.
//
// # zstd:chunked
//
// The dialect of containers/storage, in one pass. The tar stays as it is, byte
// for byte, and with it the diffID; so does the order of its entries, which is
// why a profile has no say here. Each chunk of a file is a zstd frame. Chunks
// have fixed bounds where podman cuts by rolling checksum: podman shares whole
// files between layers by their digests in either case, and chunks that are
// 1 MiB rather than 64 KiB at the mean compress better and make a table of
// contents a tenth of the size. A run of zeros of 4 KiB or more is a chunk of
// its own, which nobody has to fetch; the holes of sparse files have no bytes
// at all.
//
// # eStargz
//
// Made with the estargz library from a spooled tar, whose every entry gets a
// new header: in PAX form, with LIBARCHIVE's attributes in the form that readers
// of eStargz know, holes filled. The library rounds times in the table of
// contents; here they are exact. Several entries of one path become what
// extractors leave of them, and a hard link comes after its target. A profile's
// files come first, with the directories above them, and the landmark after
// them says so to readers that prefetch.
//
// # Limits
//
// A million entries, 1 GiB of names, 1 TiB of files. Memory: a few chunks, and
// of each entry 100 to 200 bytes and its name twice for eStargz, and its share
// of the compressed table of contents for both; eStargz also holds the whole
// table as JSON, some 500 bytes an entry and chunk, while it ends the layer.
// Disk: the tar, for eStargz, in a temporary file.
//
// # Errors
//
// [ErrMalformed]: the tar is none, or breaks a limit. [ErrUnrepresentable]: it
// holds a name that is not UTF-8, or a time, which a table of contents, being
// JSON, cannot. Errors name the entry. All others are the reader's, the
// writer's or the context's own.
//
// # Concurrency
//
// The functions may be called concurrently. Layer starts one goroutine for
// zstd:chunked and waits for it.
package convert
