package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
	"github.com/peelfs/peel/manifest"
)

// containerdName is where containerd's export keeps the whole name of an
// image; the annotation of image-spec then has the tag alone.
const containerdName = "io.containerd.image.name"

// oci is an OCI image layout (image-spec 1.1, image-layout.md).
type oci struct {
	in    folder
	index []ocispec.Descriptor     // of index.json
	made  map[digest.Digest][]byte // indexes made by pick
}

func openOCI(in folder) (*oci, error) {
	raw, err := document(in, ocispec.ImageLayoutFile, maxV1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no file %s and so is not an OCI layout", ErrMalformed, ocispec.ImageLayoutFile)
	}
	if err != nil {
		return nil, err
	}
	var mark ocispec.ImageLayout
	if err := json.Unmarshal(raw, &mark); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, ocispec.ImageLayoutFile, err)
	}
	if !strings.HasPrefix(mark.Version, "1.") {
		return nil, fmt.Errorf("%w: %s: version %s, want %s", ErrMalformed, ocispec.ImageLayoutFile, quote(mark.Version), ocispec.ImageLayoutVersion)
	}
	if raw, err = document(in, ocispec.ImageIndexFile, maxDocument); err != nil {
		return nil, absent(err, ocispec.ImageIndexFile)
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, ocispec.ImageIndexFile, err)
	}
	return &oci{in: in, index: index, made: map[digest.Digest][]byte{}}, nil
}

// parseIndex reads the entries of an index.
func parseIndex(raw []byte) ([]ocispec.Descriptor, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("schemaVersion %d, want 2", doc.SchemaVersion)
	}
	if !jsonlist.IsNull(doc.Layers) {
		return nil, errors.New("it has layers and so is no index")
	}
	all, err := jsonlist.Decode[ocispec.Descriptor](doc.Manifests, maxImages)
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	for i, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("entry %d: digest %s: %w", i+1, quote(string(d.Digest)), err)
		}
		if d.Size < 0 {
			return nil, fmt.Errorf("entry %d: size %d", i+1, d.Size)
		}
	}
	return all, nil
}

func (o *oci) find(d digest.Digest) (*file, error) {
	if raw, ok := o.made[d]; ok {
		return memory("the index", raw), nil
	}
	// Validated by the caller: no separators in it.
	return o.in.open(path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
}

// load returns the verified document that d describes.
func (o *oci) load(d ocispec.Descriptor) ([]byte, error) {
	f, err := o.find(d.Digest)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, absent(err, string(d.Digest)))
	}
	defer f.Close()
	raw, err := verified(f, d.Digest)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return raw, nil
}

// nameOf is the name of an entry; "" if it has none that could be written
// behind the path in a reference.
func nameOf(d ocispec.Descriptor) string {
	for _, key := range []string{containerdName, ocispec.AnnotationRefName} {
		s := d.Annotations[key]
		if s == "" || len(s) > maxReference {
			continue
		}
		if ref, err := manifest.ParseReference(manifest.TransportOCI + ":/:" + s); err == nil && ref.Within() == s {
			return s
		}
	}
	return ""
}

// isAttached: entries that are there for the sake of others.
func isAttached(d ocispec.Descriptor) bool {
	algorithm, hex, ok := strings.Cut(d.Annotations[ocispec.AnnotationRefName], "-")
	return d.ArtifactType != "" || d.Platform != nil && d.Platform.OS == "unknown" ||
		ok && algorithm == digest.SHA256.String() && digest.SHA256.Validate(hex) == nil
}

// ociImage are the entries of index.json that are one image: one, or several
// of the same name and different platforms.
type ociImage struct {
	names   []string
	entries []ocispec.Descriptor
}

// images are those of index.json, without what is attached to them unless
// there is nothing else.
func (o *oci) images() []ociImage {
	tops := slices.DeleteFunc(slices.Clone(o.index), isAttached)
	if len(tops) == 0 {
		tops = o.index
	}
	var named []ociImage
	for _, d := range tops {
		name := nameOf(d)
		i := slices.IndexFunc(named, func(im ociImage) bool { return im.names[0] == name && belongs(d, im.entries) })
		if i < 0 {
			named = append(named, ociImage{[]string{name}, []ocispec.Descriptor{d}})
			continue
		}
		named[i].entries = append(named[i].entries, d)
	}
	return merge(named)
}

// belongs reports whether d is one image with others of its name: if it is one
// of them, or if each is for a platform of its own. Of images that docker saved
// together, alpine:latest and busybox:latest, only the tags are the same.
func belongs(d ocispec.Descriptor, others []ocispec.Descriptor) bool {
	if slices.ContainsFunc(others, func(e ocispec.Descriptor) bool { return e.Digest == d.Digest }) {
		return true
	}
	return d.Platform != nil && !slices.ContainsFunc(others, func(e ocispec.Descriptor) bool {
		return e.Platform == nil || e.Annotations[containerdName] != d.Annotations[containerdName] ||
			!isAttached(d) && samePlatform(*e.Platform, *d.Platform)
	})
}

func samePlatform(a, b ocispec.Platform) bool {
	return a.Architecture == b.Architecture && a.OS == b.OS && a.Variant == b.Variant && a.OSVersion == b.OSVersion &&
		slices.Equal(a.OSFeatures, b.OSFeatures)
}

// merge makes one of what is there under several names, and takes names away
// that are not an image's own.
func merge(named []ociImage) []ociImage {
	uses := map[string]int{"": 2}
	for _, im := range named {
		uses[im.names[0]]++
	}
	var all []ociImage
	for _, im := range named {
		if uses[im.names[0]] > 1 {
			im.names = nil
		}
		i := slices.IndexFunc(all, func(other ociImage) bool {
			return slices.EqualFunc(other.entries, im.entries, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest })
		})
		if i < 0 {
			all = append(all, im)
			continue
		}
		all[i].names = append(all[i].names, im.names...)
	}
	return all
}

// called are the names of an image, or the digest of the document d that it
// was joined to.
func (im ociImage) called(d ocispec.Descriptor) []string {
	if len(im.names) == 0 {
		return []string{"@" + string(d.Digest)}
	}
	return im.names
}

func (o *oci) entries(context.Context) ([]Entry, error) {
	var all []Entry
	for _, im := range o.images() {
		d, err := o.join(im.entries)
		if err != nil {
			return nil, err
		}
		all = append(all, Entry{Names: im.called(d), Desc: d})
	}
	return all, nil
}

// names are what can be written behind the path, for all images.
func (o *oci) names(ctx context.Context) string {
	entries, err := o.entries(ctx)
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Names...)
	}
	return enumerate(all)
}

func (o *oci) pick(ctx context.Context, within string) (Entry, []byte, error) {
	d, err := o.choose(ctx, within)
	if err != nil {
		return Entry{}, nil, err
	}
	raw, err := o.load(d)
	if err != nil {
		return Entry{}, nil, err
	}
	all, err := o.entries(ctx)
	if err != nil {
		return Entry{}, nil, err
	}
	picked := Entry{Desc: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(raw))}}
	if i := slices.IndexFunc(all, func(e Entry) bool { return e.Desc.Digest == d.Digest }); i >= 0 {
		picked.Names = all[i].Names
	}
	return picked, raw, nil
}

// choose finds the document that within names.
func (o *oci) choose(ctx context.Context, within string) (ocispec.Descriptor, error) {
	if pin, ok := strings.CutPrefix(within, "@"); ok {
		return o.pinned(ctx, digest.Digest(pin))
	}
	if within != "" {
		return o.named(ctx, within)
	}
	images := o.images()
	switch len(images) {
	case 1:
		return o.join(images[0].entries)
	case 0:
		return ocispec.Descriptor{}, fmt.Errorf("%w: there is no image in it", ErrNotFound)
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w; name one of them behind the path and a colon: %s", ErrAmbiguous, o.names(ctx))
}

// pinned is the entry of digest d, or an image of several entries that is
// joined to it, or else just what has that digest.
func (o *oci) pinned(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	if err := d.Validate(); err != nil {
		return o.numbered(string(d))
	}
	for _, e := range o.index {
		if e.Digest == d {
			return e, nil
		}
	}
	images, err := o.entries(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, im := range images {
		if im.Desc.Digest == d {
			return im.Desc, nil
		}
	}
	f, err := o.find(d)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: no manifest %s", ErrNotFound, d)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{Digest: d, Size: f.size}, f.Close()
}

// numbered is an entry of index.json by its place in it, as skopeo counts.
func (o *oci) numbered(number string) (ocispec.Descriptor, error) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= len(o.index) {
		return ocispec.Descriptor{}, fmt.Errorf("%w: no entry %s in %s, which has %d", ErrNotFound, quote(number), ocispec.ImageIndexFile, len(o.index))
	}
	return o.index[n], nil
}

// named searches index.json for a name, then the indexes that it lists, and at
// last index.json for a whole name with that tag.
func (o *oci) named(ctx context.Context, name string) (ocispec.Descriptor, error) {
	level, left := o.index, maxNested
	for range maxDepth {
		found := slices.DeleteFunc(slices.Clone(level), func(d ocispec.Descriptor) bool { return !isCalled(d, name) })
		if len(found) > 0 {
			return o.join(found)
		}
		var next []ocispec.Descriptor
		for _, d := range level {
			if !isIndex(d.MediaType) || left == 0 {
				continue
			}
			left--
			if err := ctx.Err(); err != nil {
				return ocispec.Descriptor{}, err
			}
			raw, err := o.load(d)
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			entries, err := parseIndex(raw)
			if err != nil {
				return ocispec.Descriptor{}, fmt.Errorf("%w: index %s: %w", ErrMalformed, d.Digest, err)
			}
			next = append(next, entries...)
		}
		level = next
	}
	tagged := slices.DeleteFunc(slices.Clone(o.index), func(d ocispec.Descriptor) bool { return !strings.HasSuffix(nameOf(d), ":"+name) })
	if len(tagged) > 0 {
		return o.join(tagged)
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: no image %s; there are: %s", ErrNotFound, quote(name), o.names(ctx))
}

// isCalled compares names as they stand and, as containerd writes whole ones,
// in full.
func isCalled(d ocispec.Descriptor, name string) bool {
	ref, whole := d.Annotations[ocispec.AnnotationRefName], d.Annotations[containerdName]
	return ref == name || whole == name || normal(name) != "" && strings.Contains(name, "/") && normal(ref) == normal(name) ||
		whole != "" && normal(whole) == normal(name)
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// join makes one of the entries that are called the same: themselves, if they
// are, or an index of them, if each is for a platform.
func (o *oci) join(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var different []ocispec.Descriptor
	one := true
	for _, d := range entries {
		if !slices.ContainsFunc(different, func(e ocispec.Descriptor) bool { return e.Digest == d.Digest }) {
			one = one && (len(different) == 0 || belongs(d, different))
			different = append(different, d)
		}
	}
	if len(different) == 1 {
		return different[0], nil
	}
	if !one {
		var all []string
		for _, d := range different {
			all = append(all, "@"+string(d.Digest))
		}
		return ocispec.Descriptor{}, fmt.Errorf("%w of the same name; name one by its digest: %s", ErrAmbiguous, enumerate(all))
	}
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: different,
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	o.made[d.Digest] = raw
	return d, nil
}
