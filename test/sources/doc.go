// Package sources asks: is an image that lies on this machine, in whatever form
// other tools have left it, mounted where it lies, shown as it is, and written
// again byte for byte?
package sources
