// Package ocilayout writes OCI image layouts (image-spec, image-layout.md):
// blobs first, then the manifests that name them.
//
// # Life cycle
//
// Open makes the folder a layout, or takes the one that is there. Create gives
// a Writer for one blob, whose name is the digest of what was written to it.
// PutManifest stores a manifest, and with a tag also names it in index.json.
// PutImage does the same, and takes no name away from another image.
// There is nothing to close but Writers.
//
// # Concurrency
//
// A Layout may be used by any number of goroutines and processes, a Writer by
// one goroutine. Blobs and index.json are replaced by renaming, so that readers
// see old or new. Changes of index.json are made under flock(2) of the layout's
// folder, which leaves no file behind and ends with its process.
//
// # What stays
//
// Blobs and other tags that are there are kept. A file in the place of a blob
// that has another size is replaced. A process that is killed leaves a file
// blobs/.new-*, which nothing reads.
//
// # Errors
//
// ErrMalformed: the folder holds something else than a layout of version 1.
// ErrVerify: the content has another digest or size than it should.
// ErrTaken: the name is another image's. All others are the file system's or the
// context's. They begin with the folder.
//
// # Limits
//
// sha256 only. An index.json of at most 8 MiB.
package ocilayout
