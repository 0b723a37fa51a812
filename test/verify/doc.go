// Package verify asks: can a byte that the image does not have get through to a
// reader?
//
// A proxy flips bytes, swaps tables of contents, manifests and configurations,
// and cuts bodies short. Whatever it does, a read gives the right bytes or
// fails, the error says what was wrong, and nothing wrong stays in the cache.
package verify
