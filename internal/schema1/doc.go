// Package schema1 finds the bytes that the digest of a Docker manifest of
// schema 1 is over.
//
// A signed manifest is a JSON Web Signature in libtrust's "pretty" form: the
// signatures are members of the document that they sign. The protected header
// of each says how the document was before they were added: its first
// formatLength bytes, and then formatTail. That payload has the digest by which
// registries know the manifest, and is all that may be read of it: what lies
// outside may have been added by anybody without changing the digest.
//
// Signatures are not verified. Registries and clients made their keys
// themselves, so that a valid signature proves nothing that the digest does
// not.
package schema1
