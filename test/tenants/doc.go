// Package tenants asks: do mounts that share a line and a cache folder leave
// each other their share?
//
// Ten processes serve ten images to ten workloads over one simulated line. Each
// read that has to wait for the line is timed. Beside it, the same ten workloads
// run with a line of a tenth of the bandwidth and a cache folder each: that is
// what each would see alone, at an equal share, measured on a machine that is
// just as busy, so that what other work does to the one it does to the other. A
// round that is lost to noise all the same is repeated.
package tenants
