// Package plain asks: is a layer without a table of contents (gzip, zstd, tar)
// as good as one with it once it has been streamed?
//
// That is: whatever tool compressed it, what is evicted comes back by ranges
// and is the same; a first mount that is interrupted or cut off fetches little
// twice; and its memory does not grow with the layer.
package plain
