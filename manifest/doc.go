// Package manifest turns what a user types into an image whose every document
// has been checked.
//
// The way is [ParseReference], [Resolve], [LoadConfig]. Resolve asks a
// [Fetcher] for the document that the reference names, walks indexes down to
// the manifest of one platform and returns an [Image]; LoadConfig reads the
// image's configuration with the digests of the uncompressed layers. The two
// are apart so that a caller can read the configuration while it opens layers.
//
// A reference to the indexes of an image's layers ([Attached]) means the image
// that they are attached to; [ParseIndexes] reads those that peel writes.
//
// A reference with a [Reference.Transport] is to an image on this machine. The
// package takes it apart and asks its Fetcher as it asks a registry; what reads
// files and folders is package local.
//
// Trust starts at the digest that the reference holds or that the registry
// gave for the tag; every further document must have the size and digest that
// its parent states. Nothing of a document that failed [Verify] is used.
//
// Read are OCI image indexes and manifests (image-spec 1.1), Docker manifest
// lists, and Docker manifests of schema 2 and 1. A document must say one thing
// only: its own media type must agree with its parent's or the server's, and
// one with both layers and manifests is refused, since two programs could read
// two images from it. Of all images in an index and the indexes within it, the
// best by containerd's platform rules is taken, the first of equals. An entry
// without platform has that of its configuration; if that names none either,
// the image comes last. The search ends early at an exact match. Attestations
// are never the image, and artifacts only if an index has no image at all.
//
// # What is not an image of today
//
// A manifest of Docker schema 1 is known by the digest of what is signed of it
// (package schema1), and nothing else of it is read. It states neither sizes,
// which the Fetcher has to tell as a [Sizer], nor diffIDs, nor a
// configuration: [CompleteConfig] makes the one that Docker made once the
// layers have been read. Signatures are not verified: their keys were made by
// whoever pushed the image, and name nobody.
//
// A manifest whose configuration is not an image's is an artifact. Its layers
// are files, named by their titles, or tars (Image.FileName), and their
// diffIDs are unknown as well.
//
// # Limits
//
// A document or configuration has at most [MaxDocument] bytes, an index 4096
// entries, a manifest 512 layers of up to 1 PiB with 64 URLs each, a
// configuration or a manifest of schema 1 8192 history entries. Indexes nest 4
// deep, and one Resolve reads at most 64 documents. A reference has at most
// 1024 bytes, one with a path 5120.
//
// # Errors
//
// Errors name the document, are compared with errors.Is, and wrap one of the
// sentinels of this package, except a Fetcher's own, which are passed on as
// they are. Those caused by what the user typed end in what to type instead.
//
// # Concurrency
//
// The package keeps no state, and starts goroutines only to ask for the sizes
// of several layers, for which Resolve waits. Values may be shared as long as
// nobody changes them.
package manifest
