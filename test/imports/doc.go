// Package imports asks: do the arrows still point where the design has them?
//
// It reads the module with "go list" and fails on an import that is not in the
// table of allowed arrows, on a package without doc.go, on an init function and
// on a file above 500 lines. Nothing here starts peel.
package imports
