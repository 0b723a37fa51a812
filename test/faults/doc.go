// Package faults asks: does a mount get over a registry that fails in every way
// at once, and over one that is gone for a while, without a reader noticing more
// than the wait?
package faults
