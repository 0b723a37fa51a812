// Package link makes a server on loopback look like one at the far end of a
// network line: every request waits for a round trip, and all responses share
// one bandwidth. It injects no faults.
//
// Model: HTTP/1 without pipelining. A request costs one round trip before its
// first response byte, and the first one on a connection another for the
// handshake. A response body is sent in pieces of 16 KiB that take turns on
// the line, so that parallel responses share it evenly. Upstream bytes,
// headers and slow start are free, which favours many small requests a little.
//
// A Link may serve many connections at once. It starts no goroutines; a
// response ends early when its client goes away.
package link
