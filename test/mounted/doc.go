// Package mounted asks: does a mount behave as a file system should?
//
// Figures of statfs, extended attributes and capabilities, names of any bytes,
// sparse files, positions in directories, read-only errors, and programs that
// run from it.
package mounted
