// Package local reads images that lie on this machine, in place.
package local
