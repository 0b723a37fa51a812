package manifest

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxReference is in bytes: 255 of name, 128 of tag, the longest digest, and
// room for names to come.
const maxReference = 1024

// Reference is the normalised name of an image in a registry, with a tag, a
// digest, or both. The zero value names nothing.
type Reference struct{ named reference.Named }

// ParseReference reads a reference as docker's users type it: "alpine" is
// docker.io/library/alpine:latest. The error is an ErrReference and ends in
// what to type instead, as far as that can be guessed.
func ParseReference(s string) (Reference, error) {
	if hint := precheck(s); hint != "" {
		return Reference{}, fmt.Errorf("%w %s: %s", ErrReference, quote(s), hint)
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %s: %s", ErrReference, quote(s), explain(s, err))
	}
	return Reference{reference.TagNameOnly(named)}, nil
}

// String is the full name: docker.io/library/alpine:latest. It has tag and
// digest if both were given.
func (r Reference) String() string {
	if r.named == nil {
		return ""
	}
	return r.named.String()
}

// Named is the reference as distribution/reference knows it, with tag and
// digest if both were given.
func (r Reference) Named() reference.Named { return r.named }

// Digest is the digest that the reference asks for. If there is one, the tag
// is for display only.
func (r Reference) Digest() (digest.Digest, bool) {
	if d, ok := r.named.(reference.Digested); ok {
		return d.Digest(), true
	}
	return "", false
}

// repository is the name without tag and digest.
func (r Reference) repository() reference.Named { return reference.TrimNamed(r.named) }

// at names another document of the same repository.
func (r Reference) at(d digest.Digest) (reference.Named, error) {
	named, err := reference.WithDigest(r.repository(), d)
	if err != nil {
		return nil, fmt.Errorf("%w: digest %s: %w", ErrMalformed, quote(string(d)), err)
	}
	return named, nil
}

// SplitPath splits "alpine:/etc/os-release" into "alpine" and
// "/etc/os-release", as cp(1)-like commands take it; ok is false if s names no
// path. A reference never holds ":/", so that the first one is the border,
// whatever ports, tags and digests come before it. Only behind a transport,
// as in "oci:/dir:/etc", it is the second one. Neither half is checked:
// ParseReference refuses transports.
func SplitPath(s string) (ref, path string, ok bool) {
	transport, name := "", s
	if word, rest, _ := strings.Cut(s, ":"); isTransport(word) && strings.HasPrefix(rest, "/") {
		transport, name = word+":", rest
	}
	ref, rest, ok := strings.Cut(name, ":/")
	if !ok || (strings.HasPrefix(rest, "/") && isScheme(ref)) {
		return s, "", false
	}
	return transport + ref, "/" + rest, true
}
