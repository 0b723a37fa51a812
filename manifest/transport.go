package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Transports: the words by which images outside registries are named, as
// skopeo's users know them.
const (
	TransportOCI           = "oci"            // oci:DIR[:TAG|@DIGEST|:@N], an OCI layout
	TransportOCIArchive    = "oci-archive"    // oci-archive:FILE[:TAG|@DIGEST|:@N], one in a tar
	TransportDockerArchive = "docker-archive" // docker-archive:FILE[:NAME[:TAG]|:@N], of docker save
	TransportDockerDir     = "docker-dir"     // docker-dir:DIR[:NAME[:TAG]|:@N], one unpacked
	TransportDir           = "dir"            // dir:DIR, as skopeo writes it
)

// maxLocal is in bytes: PATH_MAX of Linux, and what follows a path.
const maxLocal = 4096 + maxReference

// usage is how a transport's references are written; "" for no transport of
// peel's.
func usage(transport string) string {
	switch transport {
	case TransportOCI:
		return "oci:DIR[:TAG] or oci:DIR@DIGEST"
	case TransportOCIArchive:
		return "oci-archive:FILE[:TAG] or oci-archive:FILE@DIGEST"
	case TransportDockerArchive:
		return "docker-archive:FILE[:NAME[:TAG]], or docker-archive:FILE:@0 for the first image in it"
	case TransportDockerDir:
		return "docker-dir:DIR[:NAME[:TAG]]"
	case TransportDir:
		return "dir:DIR"
	}
	return ""
}

// elsewhere tells the way round a transport that peel does not read; "" for
// any other word.
func elsewhere(transport string) string {
	switch transport {
	case "docker-daemon":
		return "peel does not ask Docker's daemon; run docker save -o FILE.tar NAME and write docker-archive:FILE.tar"
	case "containers-storage":
		return "peel does not read podman's storage; run podman save --format oci-archive -o FILE.tar NAME and write oci-archive:FILE.tar"
	}
	return ""
}

// isTransport reports whether s is one of the words that skopeo's users put
// before a colon. As references they would be Docker Hub images with the
// file's name for a tag.
func isTransport(s string) bool { return usage(s) != "" || elsewhere(s) != "" }

// parseLocal reads what follows transport and its colon.
func parseLocal(transport, rest string) (Reference, error) {
	r := Reference{transport: transport}
	if problem := r.cut(rest); problem != "" {
		return Reference{}, fmt.Errorf("%w %s: %s", ErrReference, quote(transport+":"+rest), problem)
	}
	abs, err := filepath.Abs(r.location)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %s: %w", ErrReference, quote(transport+":"+rest), err)
	}
	// The folder that a relative name begins in has not been looked at yet.
	if problem := r.checkLocation(abs); problem != "" {
		return Reference{}, fmt.Errorf("%w %s: %s", ErrReference, quote(transport+":"+rest), problem)
	}
	r.location = abs
	sum := sha256.Sum256([]byte(r.String()))
	named, err := reference.ParseNamed("local.invalid/" + hex.EncodeToString(sum[:16]))
	if err != nil {
		return Reference{}, fmt.Errorf("%w %s: %w", ErrReference, quote(transport+":"+rest), err)
	}
	r.named = reference.TagNameOnly(named)
	return r, nil
}

// cut divides rest into location and what is within; it returns what is wrong
// with it, or "".
func (r *Reference) cut(rest string) string {
	usage := usage(r.transport)
	switch {
	case len(rest) > maxLocal:
		return fmt.Sprintf("it has %d bytes, more than %d", len(rest), maxLocal)
	case !utf8.ValidString(rest) || strings.ContainsFunc(rest, unicode.IsControl):
		return "it holds a character that cannot be printed"
	}
	volume := filepath.VolumeName(rest) // C: on Windows
	location, within := rest[len(volume):], ""
	if r.transport != TransportDir {
		location, within = r.divide(location)
	}
	r.location, r.within = volume+location, within
	if r.location == "" {
		return "it names no file or folder; write " + usage
	}
	if problem := r.checkWithin(); problem != "" {
		return problem + "; write " + usage
	}
	return ""
}

// divide finds the border between a path and what is within: the first colon,
// as for skopeo, or the @ of a digest or of a number at the end.
func (r *Reference) divide(rest string) (location, within string) {
	if path, d, ok := cutLast(rest, "@"); ok && r.isPinning(d) && !strings.Contains(path, ":") {
		return path, "@" + d
	}
	path, name, ok := strings.Cut(rest, ":")
	if ok && name == "" {
		name = ":" // refused by checkWithin
	}
	return path, name
}

// isPinning reports whether s after an @ names one of the images of a place.
func (r *Reference) isPinning(s string) bool {
	if r.isOCI() {
		return strings.HasPrefix(s, "sha")
	}
	return isNumber(s)
}

func (r *Reference) isOCI() bool {
	return r.transport == TransportOCI || r.transport == TransportOCIArchive
}

// checkWithin returns what is wrong with what follows the location, or "".
func (r *Reference) checkWithin() string {
	pin, pinned := strings.CutPrefix(r.within, "@")
	switch {
	case r.within == "":
		return ""
	case len(r.within) > maxReference:
		return fmt.Sprintf("what follows the path has %d bytes, more than %d", len(r.within), maxReference)
	case strings.ContainsAny(r.within[:1], "/:-.") || strings.Contains(r.within, ":/"):
		return quote(r.within) + " is no name or tag"
	case r.isOCI() && pinned:
		if _, err := digest.Parse(pin); err != nil && !isNumber(pin) {
			return quote(pin) + " is neither a digest nor the number of an image"
		}
	case r.isOCI() && strings.Contains(r.within, "@sha"):
		return quote(r.within) + " is a tag and a digest"
	case r.isOCI():
		if strings.ContainsFunc(r.within, func(c rune) bool { return !isTagRune(c) }) {
			return quote(r.within) + " is not a tag"
		}
	case pinned:
		if !isNumber(pin) {
			return quote(pin) + " is not the number of an image"
		}
	default:
		named, err := reference.ParseNormalizedNamed(r.within)
		if err != nil {
			return quote(r.within) + " is not a name with or without tag"
		}
		if _, ok := named.(reference.Digested); ok {
			return quote(r.within) + " holds a digest, which such places do not know"
		}
	}
	return ""
}

// isTagRune: what image-spec allows in org.opencontainers.image.ref.name
// (annotations.md), which is wider than a registry's tags.
func isTagRune(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._:@/+", c)
}

// checkLocation returns what is wrong with the path, or "".
func (r *Reference) checkLocation(path string) string {
	path = path[len(filepath.VolumeName(path)):]
	switch {
	case r.transport == TransportDir && strings.Contains(path, ":/"):
		return fmt.Sprintf("%s holds \":/\", behind which a path in the image begins; rename the folder", quote(path))
	case r.transport != TransportDir && strings.Contains(path, ":"):
		return fmt.Sprintf("%s holds a colon, behind which a tag begins; rename it or reach it through a symbolic link", quote(path))
	case strings.ContainsFunc(path, unicode.IsControl) || !utf8.ValidString(path):
		return fmt.Sprintf("%s holds a character that cannot be printed", quote(path))
	}
	return ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}
