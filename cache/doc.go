// Package cache keeps on disk what was fetched or computed: the bytes of
// layers, documents (manifests, configs, indexes, trees, claims, profiles) and what
// references resolved to. Several processes use one folder at the same time,
// without a daemon.
//
//	blobs/<alg>/<hex>/data   sparse file: the layer's address space
//	blobs/<alg>/<hex>/have   which spans of data are there; mapped shared
//	blobs/<alg>/<hex>/stage  the layer while it is streamed, not yet proved
//	blobs/<alg>/<hex>/stage.notes
//	                         where an interrupted pass can go on
//	blobs/<alg>/<hex>/claims empty; which spans are being fetched
//	blobs/<alg>/<hex>/lock, blobs/<alg>/<hex>/stage.lock
//	image/<alg>/<hex>/manifest, image/<alg>/<hex>/config
//	image/<alg>/<hex>/sizes  what a blob measures that no manifest tells
//	index/<alg>/<hex>, tree/<alg>/<hex>, claims/<alg>/<hex>, profile/<alg>/<hex>
//	refs/<escaped reference> JSON: name, digest, time of resolution; its time of
//	                         modification is the last use, give or take a minute
//	locks/<alg>/<hex>        empty; who fetches or makes a document
//	tmp/                     documents being written
//
// Life cycle: [Open] a folder; [Cache.Store] opens a layer for reading and
// filling, [Cache.Stage] takes a layer that is streamed whole. Close both. A
// Cache itself holds nothing open.
//
// Locks are flock(2) and vanish with their process. On lock: exclusive, for a
// few system calls, while data and have are opened or replaced. On stage.lock:
// exclusive while a layer is streamed and its index written. On have: shared
// while a Store is open, so that an evictor sees which layers are in use. On
// data: shared during Put, and from [Stage.Commit] to Close, exclusive while an
// evictor punches holes. On locks/…: exclusive, while [Cache.Lock] is held. On
// byte n of claims, by F_OFD_SETLK of fcntl(2), while span n is claimed by
// [Store.Claim]; only Linux has these. [Cache.RemoveStore] takes lock,
// stage.lock and have exclusively, and does nothing if one is held. data and
// have are only ever replaced by new files, hence an open Store keeps a pair that
// fits, even if the folder is deleted.
//
// A pass that is interrupted, or killed, leaves stage and the notes it made;
// the next one reads both and calls [Stage.Rewind] with what it makes of them,
// or overwrites them. Only the digests at the end prove that both were sound.
// Without notes, or if the disk was full, Close removes stage.
//
// Layers give each other what they have in common: a [Lender] reads the data of
// one without opening its store, and [Store.Adopt] takes bytes that the caller
// has verified, and shares their blocks where the file system can. data is then
// locked shared, as during Put. Removing a layer does not wait for that.
//
// A span's bit is set after its bytes are written, so a killed process leaves
// nothing wrong behind. An evictor clears bits, then raises the generation in
// have, then punches; [Store.Read] looks at the generation before the bits and
// after the bytes, and looks again if it changed: in this order a reader that
// met a hole always sees the change. After a reboot, or if data is not the file
// that have was made for, bits are hints: Has and Read deny such spans until
// the caller has read them with [Store.Recheck], verified the bytes and called
// [Store.Confirm], or has Put them anew. Nothing is synced to disk for the same
// reason; documents carry digests or checksums, which their readers check.
//
// A have or ref file that is damaged, or of another version, counts as absent.
// The span numbers and addresses of a layer are the caller's: if the same key
// comes to mean another layout, other than by size and span count, formatVersion
// must be raised.
//
// Errors: [ErrUnusable] for a folder that cannot be used at all, [ErrFull] when
// the disk is full, [ErrInUse] for what cannot be removed now, io/fs.ErrNotExist for what is not there.
//
// Limits: the folder must be on a local file system, used by one running
// kernel at a time. Outside Linux one boot is not told from another: after every
// opening all bits are hints, and processes share spans when a store is opened,
// not while it is open.
package cache
