// Package lazy asks: is only what is read fetched, in few round trips, and
// once however many read it?
//
// A proxy before the registry counts requests and bytes on the wire.
package lazy
