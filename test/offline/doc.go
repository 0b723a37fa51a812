// Package offline asks: what works when the registry does not?
//
// A second mount and everything fetched before, at once; what was not fetched
// fails with EIO within the retry budget, and peel says which registry it was.
package offline
