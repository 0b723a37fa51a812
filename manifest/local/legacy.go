package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
	"github.com/peelfs/peel/manifest"
)

// Files of a layer in the form before Docker 1.10 (moby's image/spec, v1.0).
const (
	versionFile = "VERSION"
	jsonFile    = "json"
	layerFile   = "layer.tar"
)

// v1 is what the json of a layer says of its place.
type v1 struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	raw    []byte
}

// legacyImages lists the images of a place without manifest.json: those in
// repositories, or without that the layers that are nobody's parent.
func legacyImages(in folder) ([]dockerImage, error) {
	raw, err := document(in, repositoriesFile, maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return topmost(in)
	}
	if err != nil {
		return nil, err
	}
	all, err := parseRepositories(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, repositoriesFile, err)
	}
	return all, nil
}

// parseRepositories reads name → tag → ID of the topmost layer.
func parseRepositories(raw []byte) ([]dockerImage, error) {
	var whole json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, err
	}
	var all []dockerImage
	err := members(whole, maxImages, func(name string, tags json.RawMessage) error {
		return members(tags, maxTags, func(tag, id string) error {
			if !isID(id) {
				return fmt.Errorf("%s is not the ID of a layer", quote(id))
			}
			i := slices.IndexFunc(all, func(im dockerImage) bool { return im.top == id })
			if i < 0 {
				if len(all) == maxImages {
					return fmt.Errorf("more than %d images", maxImages)
				}
				i = len(all)
				all = append(all, dockerImage{top: id})
			}
			all[i].names = append(all[i].names, usable([]string{name + ":" + tag})...)
			return nil
		})
	})
	return all, err
}

// topmost finds the images of a place that names none.
func topmost(in folder) ([]dockerImage, error) {
	names, err := in.folders()
	if err != nil {
		return nil, err
	}
	ids, parents := []string{}, map[string]bool{}
	for _, id := range names {
		if !isID(id) {
			continue
		}
		l, err := readV1(in, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(ids) == maxImages {
			return nil, fmt.Errorf("%w: entry %s: more than %d layers", ErrMalformed, quote(id), maxImages)
		}
		ids = append(ids, id)
		parents[l.Parent] = true
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: it has neither %s nor %s; either docker save did not write it, or it is not all there",
			ErrMalformed, manifestFile, repositoriesFile)
	}
	var all []dockerImage
	for _, id := range ids {
		if !parents[id] {
			all = append(all, dockerImage{top: id})
		}
	}
	return all, nil
}

// isID recognises the IDs of layers, which in this form are random or digests.
func isID(s string) bool { return digest.SHA256.Validate(s) == nil }

// readV1 reads the json of a layer. It is an fs.ErrNotExist if there is none.
func readV1(in folder, id string) (v1, error) {
	var l v1
	name := id + "/" + jsonFile
	raw, err := document(in, name, maxV1)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, fmt.Errorf("%w: entry %s: %w", ErrMalformed, quote(name), err)
	}
	switch {
	case l.ID != id:
		return l, fmt.Errorf("%w: entry %s is about the layer %s", ErrMalformed, quote(name), quote(l.ID))
	case l.Parent != "" && !isID(l.Parent):
		return l, fmt.Errorf("%w: entry %s: its parent %s is not the ID of a layer", ErrMalformed, quote(name), quote(l.Parent))
	}
	l.raw = raw
	return l, checkVersion(in, id+"/"+versionFile)
}

// checkVersion refuses forms to come. The file may be missing.
func checkVersion(in folder, name string) error {
	version, err := document(in, name, maxName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && strings.TrimSpace(string(version)) != "1.0" {
		err = fmt.Errorf("%w: entry %s says %s, want 1.0", ErrMalformed, quote(name), quote(string(version)))
	}
	return err
}

// chain follows parents; the base comes first.
func chain(in folder, top string) ([]v1, error) {
	var all []v1
	size := 0
	seen := map[string]bool{}
	for id := top; id != ""; {
		if seen[id] {
			return nil, fmt.Errorf("%w: entry %s: the layer is its own ancestor", ErrMalformed, quote(id+"/"+jsonFile))
		}
		if len(all) == maxLayers {
			return nil, fmt.Errorf("%w: layer %s has more than %d ancestors", ErrMalformed, quote(top), maxLayers)
		}
		seen[id] = true
		l, err := readV1(in, id)
		if err != nil {
			return nil, absent(err, id+"/"+jsonFile)
		}
		if size += len(l.raw); size > maxDocument {
			return nil, fmt.Errorf("%w: the %s of layer %s and its ancestors have more than %d bytes", ErrMalformed, jsonFile, quote(top), maxDocument)
		}
		all = append(all, l)
		id = l.Parent
	}
	slices.Reverse(all)
	return all, nil
}

// legacy opens the layers of an image without configuration, and makes that.
func (w *work) legacy(ctx context.Context, im *dockerImage) error {
	layers, err := chain(w.from.in, im.top)
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := w.add(l.ID+"/"+layerFile, "", nil); err != nil {
			return err
		}
	}
	if err := w.complete(ctx); err != nil {
		return err
	}
	if err := w.convert(ctx, layers); err != nil {
		return fmt.Errorf("layer %s: %w", im.top, err)
	}
	return nil
}

// convert makes the configuration. The image in this form and in a manifest of
// schema 1 are the same but for the manifest, and so are the ways in which
// Docker converts them.
func (w *work) convert(ctx context.Context, layers []v1) error {
	type blob struct {
		BlobSum digest.Digest `json:"blobSum"`
	}
	type entry struct {
		V1Compatibility string `json:"v1Compatibility"`
	}
	var m struct {
		SchemaVersion int     `json:"schemaVersion"`
		FSLayers      []blob  `json:"fsLayers"`
		History       []entry `json:"history"`
	}
	m.SchemaVersion = 1
	parts := map[digest.Digest]part{}
	for i, p := range slices.Backward(w.parts) {
		m.FSLayers = append(m.FSLayers, blob{p.desc.Digest})
		m.History = append(m.History, entry{string(layers[i].raw)})
		parts[p.desc.Digest] = p
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	ref, err := manifest.ParseReference("local.invalid/" + layers[len(layers)-1].ID)
	if err != nil {
		return err
	}
	img, err := manifest.Resolve(ctx, schema1Source{raw, parts}, ref, manifest.DefaultPlatform())
	if err != nil {
		return err
	}
	// Without those that say that they are empty.
	w.parts = nil
	var diffIDs []digest.Digest
	for _, d := range img.Layers {
		w.parts = append(w.parts, parts[d.Digest])
		diffIDs = append(diffIDs, parts[d.Digest].diffID)
	}
	config, err := manifest.CompleteConfig(img, diffIDs)
	if err != nil {
		return err
	}
	w.config = config.Raw
	return nil
}

// schema1Source gives a manifest to package manifest.
type schema1Source struct {
	raw   []byte
	parts map[digest.Digest]part
}

func (s schema1Source) Manifest(context.Context, reference.Named) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{MediaType: schema1.MediaType, Digest: digest.FromBytes(s.raw), Size: int64(len(s.raw))}, s.raw, nil
}

func (s schema1Source) Blob(_ context.Context, _ reference.Named, d ocispec.Descriptor) ([]byte, error) {
	return nil, fmt.Errorf("%w: blob %s", ErrNotFound, d.Digest)
}

func (s schema1Source) BlobSize(_ context.Context, _ reference.Named, d digest.Digest) (int64, error) {
	return s.parts[d].desc.Size, nil
}

// both reads p once for both of its digests.
func both(ctx context.Context, p part) (sums, error) {
	blob := digest.SHA256.Digester()
	f := p.file.reader(ctx, 0, p.file.size)
	if p.packed == plain {
		_, err := io.Copy(blob.Hash(), f)
		return sums{blob.Digest(), blob.Digest()}, about(p.file, err)
	}
	in := io.TeeReader(f, blob.Hash())
	out, err := decompress(in, p.packed)
	if err != nil {
		return sums{}, about(p.file, unpacking(err))
	}
	defer out.Close()
	diffID := digest.SHA256.Digester()
	n, err := io.Copy(diffID.Hash(), &reader{io.LimitReader(out, maxUnpacked+1), ctx.Err})
	if err != nil {
		return sums{}, about(p.file, unpacking(err))
	}
	if n > maxUnpacked {
		return sums{}, about(p.file, errTooLarge())
	}
	_, err = io.Copy(io.Discard, in) // what the decompressor did not ask for
	return sums{blob.Digest(), diffID.Digest()}, about(p.file, err)
}

func about(f *file, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("entry %s: %w", quote(f.name), err)
}
