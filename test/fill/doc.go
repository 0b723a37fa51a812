// Package fill asks: does a mount with --fill become whole and proved, at no
// cost to whoever reads it?
//
// A real registry stands at the far end of a simulated line that counts what
// goes over it.
package fill
