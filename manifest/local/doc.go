// Package local reads images that lie on this machine, in place: archives and
// folders of docker save, OCI layouts, and folders of skopeo's transport dir.
//
// # Life cycle
//
// [Open] opens the place that a reference names and finds the image in it. The
// [Source] is a manifest.Fetcher for the image's documents, and its Open gives
// the layers, read by range from where they lie. [List] tells what images a
// place has. Nothing is kept between two Opens; each reads the headers of an
// archive again, passing its data by. A file, once opened, stays open until
// Close, and every read looks whether it is still what it was.
//
// # What is read without copying
//
// Plain archives and all folders. An archive that is compressed as a whole has
// no places in it that could be read: it is unpacked once per Open into a file
// without a name in Options.Tmp, which takes as much of the disk as its plain
// form, and goes when the Source is closed or the process ends.
//
// # Docker's archives
//
// They have configurations and layers but no manifests, so one of schema 2 is
// made, the same for the same archive. A plain layer has the digest that the
// configuration tells; a compressed one that in its name, or it is read once
// for it. Layers that are missing and have URLs are described by these. In the
// form before Docker 1.10 nothing tells a digest: all layers are read once, and
// the configuration is made of what the layers say of themselves.
//
// Links between members are followed, never out of the archive. The last of
// several members of one name is taken, but the files that decide what images
// there are may be there only once.
//
// # Layouts
//
// A name is looked for in index.json, by the annotations of image-spec and of
// containerd, then in the indexes that it lists. Entries of one name and
// different platforms are one image, for which an index is made; those of one
// platform are several. Without a name there must be one image, not counting
// what is attached to others. A number counts the entries of index.json.
//
// # Trust
//
// A place is believed as to what it calls an image. Every document is verified
// against its digest, that of a signed manifest of schema 1 against its
// payload. Layers are proved by whoever reads them (package layer).
//
// # Concurrency
//
// The methods of Source and Blob may be called concurrently. Open hashes in as
// many goroutines as there are processors and waits for them.
//
// # Errors
//
// They begin with the place, name the member or file, and wrap a sentinel of
// this package unless they are the context's or the file system's. [ErrChanged]
// comes from reads of a file that was written to meanwhile.
//
// # Limits
//
// They stand in limits.go: documents of 8 MiB, 100 000 members of up to 4096
// bytes of name and 16 MiB of names altogether, 40 links and 1024 folders on
// the way to a file, 4096 images, 512 layers of an image. Members with names
// that are absolute or lead out of the archive, sizes beyond its end, and
// sparse ones that are needed are refused by name. The worst archive takes some
// 100 MiB of memory, and unpacking zstd as much again for its window.
package local
