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

// Reference is the normalised name of an image: of one in a registry, with a
// tag, a digest, or both, or of one that lies on this machine, in a file or
// folder. The zero value names nothing.
type Reference struct {
	named     reference.Named
	transport string
	location  string
	within    string
}

// ParseReference reads a reference as the users of docker and skopeo type it:
// "alpine" is docker.io/library/alpine:latest, and "oci:images:3" the image 3
// in the OCI layout that is the folder images here. The words before the first
// colon are those of the Transport constants; whether file or folder exist is
// not looked at. The error is an ErrReference and ends in what to type
// instead, as far as that can be guessed.
func ParseReference(s string) (Reference, error) {
	if word, rest, ok := strings.Cut(s, ":"); ok && usage(word) != "" && !isHelm(s) {
		return parseLocal(word, rest)
	}
	if hint := precheck(s); hint != "" {
		return Reference{}, fmt.Errorf("%w %s: %s", ErrReference, quote(s), hint)
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %s: %s", ErrReference, quote(s), explain(s, err))
	}
	return Reference{named: reference.TagNameOnly(named)}, nil
}

// String is the full name: docker.io/library/alpine:latest. It has tag and
// digest if both were given. That of an image on this machine has the absolute
// path: oci:/images:3. ParseReference reads it back.
func (r Reference) String() string {
	_, pinned := r.Digest()
	switch {
	case r.transport != "" && pinned:
		return r.transport + ":" + r.location + r.within
	case r.transport != "" && r.within != "":
		return r.transport + ":" + r.location + ":" + r.within
	case r.transport != "":
		return r.transport + ":" + r.location
	case r.named == nil:
		return ""
	}
	return r.named.String()
}

// Named is the reference as distribution/reference knows it, with tag and
// digest if both were given. An image on this machine has a made-up name in
// the domain local.invalid, which no registry can have (RFC 6761, 6.4), and
// which another place or another image of the place does not share.
func (r Reference) Named() reference.Named { return r.named }

// Transport is the word before the colon of a reference to an image on this
// machine, one of the Transport constants; "" if it is in a registry.
func (r Reference) Transport() string { return r.transport }

// Location is the absolute path of the file or folder that the image is in;
// "" if it is in a registry.
func (r Reference) Location() string { return r.location }

// Within says which image of its Location is meant: a tag or a name with or
// without tag, as typed, an @ and a digest, or an @ and a number from 0. It is
// "" if that was not said, or if the image is in a registry.
func (r Reference) Within() string { return r.within }

// Digest is the digest that the reference asks for. If there is one, the tag
// is for display only.
func (r Reference) Digest() (digest.Digest, bool) {
	if pin, ok := strings.CutPrefix(r.within, "@"); ok {
		d, err := digest.Parse(pin)
		return d, err == nil
	}
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
// as in "oci:/dir:/etc", it is the second one. Neither half is checked.
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
