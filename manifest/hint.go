package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// isScheme reports whether s is what people put before "://".
func isScheme(s string) bool {
	return slices.Contains([]string{"http", "https", "docker", "oci"}, strings.ToLower(s))
}

// isHelm reports whether s names something in a registry the way Helm's users
// do, with oci://; oci:///x is a path.
func isHelm(s string) bool {
	rest, ok := strings.CutPrefix(s, "oci://")
	return ok && !strings.HasPrefix(rest, "/")
}

// precheck tells what is wrong with s, before its grammar is looked at; ""
// if nothing is.
func precheck(s string) string {
	scheme, rest, hasScheme := strings.Cut(s, "://")
	word, _, hasColon := strings.Cut(s, ":")
	switch {
	case s == "":
		return "it is empty; write an image's name, for example alpine or ghcr.io/owner/name:tag"
	case len(s) > maxReference:
		return fmt.Sprintf("it has %d bytes, more than %d", len(s), maxReference)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return "it holds a space or a character that cannot be printed"
	case hasScheme && isScheme(scheme):
		return fmt.Sprintf("leave out %s and write %s", quote(scheme+"://"), quote(rest))
	case hasColon:
		return elsewhere(word)
	}
	return ""
}

// explain tells what is wrong with s, which distribution/reference refused
// with err, in words that help to mend it.
func explain(s string, err error) string {
	name, dgst, hasDigest := strings.Cut(s, "@")
	if _, bad := digest.Parse(dgst); hasDigest && bad != nil {
		return fmt.Sprintf("%s is not a digest; write sha256: and 64 digits of 0-9 a-f", quote(dgst))
	}
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i:]
	}
	if lower := strings.ToLower(name); lower != name {
		if _, bad := reference.ParseNormalizedNamed(lower + tag); bad == nil {
			return fmt.Sprintf("names are lower case; write %s", quote(lower+tag))
		}
	}
	switch {
	case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../"):
		return "it looks like a path; write oci:DIR, oci-archive:FILE, docker-archive:FILE, docker-dir:DIR or dir:DIR"
	case tag == ":":
		return fmt.Sprintf("nothing follows the colon; write %s, or %s for its root directory", quote(name), quote(name+":/"))
	case errors.Is(err, reference.ErrNameTooLong):
		return fmt.Sprintf("the name is longer than %d characters", reference.RepositoryNameTotalLengthMax)
	case digest.Digest("sha256:"+name).Validate() == nil:
		return "it is an image's ID, which registries do not know; write a name, or name@sha256:…"
	}
	if _, bad := reference.ParseNormalizedNamed(name); tag != "" && bad == nil {
		return fmt.Sprintf("%s is not a tag; tags are up to 128 letters, digits, '_', '.' and '-'", quote(tag[1:]))
	}
	return "write [registry/]name[:tag][@digest], for example alpine or ghcr.io/owner/name:tag"
}
