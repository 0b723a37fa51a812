// Package dockersave writes images to files and folders, in the forms in which
// docker and skopeo read them back.
//
// An [Archive] is the tar of docker save, an [OCIArchive] an image layout in a
// tar, a [Dir] the folder that skopeo calls dir:. Blobs keep the bytes that
// they had where the image was, so that digests stay; docker and skopeo detect
// how a layer is compressed by its first bytes.
//
// # Life cycle
//
// Blobs first, each once, then the images that they belong to, then Close. The
// archives only append to their io.Writer, which may be a pipe. Whoever calls
// gives the result its final name after Close, as what was written before is
// of no use. A blob that fails is undone, so that it can be tried again, if the
// io.Writer is a file.
//
// # Concurrency
//
// An archive belongs to one goroutine. Blobs of a Dir may be written by
// several, if they are different ones.
//
// # Errors
//
// ErrVerify: a blob has not the size or digest that it should have. All others
// are the reader's, the writer's or the file system's.
//
// # Limits
//
// Nothing is held in memory but documents: configurations, and a line per blob
// and image.
package dockersave
