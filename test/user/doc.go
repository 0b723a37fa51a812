// Package user asks: what may an ordinary user do?
//
// Mount through fusermount3, with nosuid and nodev and for themselves only,
// and everything that needs no mount.
package user
