// Package sentinel makes the error values that packages export: each is of one
// or more classes, for programs (containerd/errdefs, io/fs), without the
// class's words, for people. They are immutable.
package sentinel
