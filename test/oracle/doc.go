// Package oracle asks: does a mount show what an eager unpack of the same
// image shows, whatever form its layers have?
//
// The truth is umoci's unpack: of the test vectors, which other tools made,
// and of two images of Debian packages, which the test kit makes.
package oracle
