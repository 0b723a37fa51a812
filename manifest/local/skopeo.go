package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/manifest"
)

// skopeo is a folder of skopeo's transport dir: one image, whose manifest is
// manifest.json, blobs by the hex of their digests and, if that manifest is a
// list, manifests by hex and .manifest.json.
type skopeo struct {
	in   folder
	desc ocispec.Descriptor
	raw  []byte
}

func openSkopeo(in folder) (*skopeo, error) {
	version, err := document(in, "version", maxName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	const known = "Directory Transport Version: 1."
	if err == nil && !strings.HasPrefix(string(version), known) {
		return nil, fmt.Errorf("%w: the file version says %s, want %s1", ErrMalformed, quote(string(version)), known)
	}
	raw, err := document(in, manifestFile, maxDocument)
	if err != nil {
		return nil, absent(err, manifestFile)
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) {
		return nil, fmt.Errorf("%w: %s is a list, not a manifest", ErrMalformed, manifestFile)
	}
	return &skopeo{in, described(raw), raw}, nil
}

// described is the descriptor of a document that nothing else describes.
func described(raw []byte) ocispec.Descriptor {
	// What it is not, the reader of the document explains better.
	mediaType, _ := manifest.MediaType(raw)
	return ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(raw, digest.SHA256), Size: int64(len(raw))}
}

func (s *skopeo) entries(context.Context) ([]Entry, error) {
	return []Entry{{Desc: s.desc}}, nil
}

func (s *skopeo) pick(context.Context, string) (Entry, []byte, error) {
	return Entry{Desc: s.desc}, s.raw, nil
}

func (s *skopeo) find(d digest.Digest) (*file, error) {
	if d == s.desc.Digest {
		return memory(manifestFile, s.raw), nil
	}
	hex := d.Encoded()
	names := []string{hex, hex + ".manifest.json", hex + ".tar"} // the last in version 1.0
	if d.Algorithm() != digest.SHA256 {
		prefix := d.Algorithm().String() + "-"
		names = append(names, prefix+hex, prefix+hex+".manifest.json")
	}
	var err error
	for _, name := range names {
		var f *file
		if f, err = s.in.open(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, err
}
