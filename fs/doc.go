// Package fs opens a container image lazily and mounts it.
//
// [Open] turns a reference into an [Image]: it resolves the manifest, indexes
// the layers side by side, merges them into one table (package fs/tree) and
// keeps every one of these products in the cache, so that opening the same
// image again is a handful of mmap(2) calls and needs no network.
//
// A layer without a table of contents is read by an index that somebody has
// made of it: the one that the reference names, one of Options.IndexRepo, the
// one of SOCI that the manifest names, or one attached to the image, in this
// order. They are looked for once per image, only if a layer needs one, and
// what is found is remembered for that image alone. Without one, or with one
// that cannot be used, a layer is read whole, once, which proves its index; the
// reason is kept in the index and logged. Such an index is preferred from then
// on to whatever anybody claims.
//
// A reference is whatever manifest.ParseReference reads. Options.Registry is
// asked for it: for an image in a registry, an adapter of remote.Client; for one
// on this machine, as of oci: or docker-archive:, an adapter of local.Source
// (package manifest/local) that was opened for that very reference and is closed
// after the Image:
//
//	type here struct{ *local.Source }
//
//	func (h here) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source { return h.Open(ref, d) }
//
//	src, err := local.Open(ctx, ref, local.Options{})
//	img, err := fs.Open(ctx, ref.String(), fs.Options{Registry: here{src}, Cache: c})
//
// Such an image is looked at each time. Its layers have an [io.ReaderAt]: they
// are read once for their indexes, and then where they lie, so that nothing of
// them is copied but what has to be decompressed and was read.
//
// Manifests of Docker schema 1 and artifacts do not tell the digests of their
// tars: all layers are read whole, and the configuration is made of what they
// are. An artifact is shown as its files. What is fetched once, documents and
// indexes, is fetched by one of the processes that share a cache.
//
// A [Puller] makes whole images local: it opens them, and fills what their layers
// lack. [Images] are those that a cache knows by name, to be listed and removed;
// what a Store, a Stage or a mount uses stays. Who opens or pulls what is being
// removed fetches it again.
//
// What a mount reads first is recorded as the image's profile, one for each
// entrypoint, and fetched ahead by the next mount: [Image.Record],
// [Image.Anticipate]. A profile is found in the cache, or attached to the image
// by [ProfileSearch], for which nobody waits. [Image.Fill] fetches the rest while
// no reader waits, and proves layers that are whole. None of them changes what a
// reader sees; what goes wrong in them is logged. [Explain] tells what became of
// the reads of layers.
//
// [Mount] shows an image through FUSE. The file system is go-fuse's raw
// interface on the table: node id = row number + 1, no inode objects, no file
// handles, nothing to forget. Content never changes, so opens are answered
// ENOSYS once and the kernel caches everything for as long as it likes. The
// process opens /dev/fuse itself and runs its own read-answer loop (conn), so
// that a mount's descriptor can outlive the process that serves it.
//
// [OpenEarly] and [MountEarly] show an image whose layers are still streamed.
// A path has a node, numbered apart from rows, once the layers above allow to
// say what it is; see Early. When the image is open its table answers, and the
// nodes are names of rows. Package tree's merge stays the only judge: what it
// does not confirm answers EIO.
//
// Concurrency: Image and Server may be used by many goroutines. Close an Image
// only after every Server on it has ended and no fs.File of it is in use,
// since its tables are mapped files. Locks that processes share are taken in this
// order: of a reference, of a document or an index (both Cache.Lock), a Stage,
// those of package cache. None of them is held while file data is read or filled;
// a removal waits for none.
//
// Errors: registry, cache and format errors come through wrapped with the
// layer or document they concern; a read(2) on a mount sees EIO, or EINTR if
// its caller was interrupted, and the cause is logged and shown by Status.
//
// A process must never execute from, or map, a mount that it serves itself:
// the page fault would wait for a thread that may be the one that faulted.
package fs
