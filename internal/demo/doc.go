// Package demo shows in one minute what peel does, with nothing but this
// machine: it makes an eStargz image of the machine's own files, puts it on a
// registry at the far end of a simulated line, uses it through peel, and then
// pulls and unpacks it whole over the same line for comparison.
//
// Life cycle: [Run] owns a temporary folder with the image, the mount point, a
// cache and the unpacked copy, and an HTTP server on loopback. All of it is
// gone when Run returns, also when its context ends; what cannot be removed is
// named by the error. peel is used as people use it, as a program of its own,
// so that this process never reads a mount that it serves.
//
// Limits: the image is made of at most about 200 MB in some 9 000 regular
// files, directories and symlinks below /usr that everybody may read; smaller
// machines give smaller images. Set-uid bits, owners and hard links are left
// out.
package demo
