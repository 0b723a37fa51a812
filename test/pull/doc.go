// Package pull asks: does peel pull make images whole, each byte once, and can
// they be used without a network afterwards?
//
// That is: layers that several images, processes and mounts want at once cross
// the wire once; a pull that is interrupted goes on where it was; what is there
// is not asked for again; damaged bytes are not kept; images of this machine are
// pulled, too; and peel images tells, and removes, what there is.
package pull
