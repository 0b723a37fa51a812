package ocilayout

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// List adds a manifest that is in the layout to index.json without a name,
// unless it is there under any.
func (l *Layout) List(d ocispec.Descriptor) error {
	err := l.locked(func() error {
		index, err := l.readIndex()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == d.Digest }) {
			return nil
		}
		index.Manifests = append(index.Manifests, d)
		return l.writeJSON(ocispec.ImageIndexFile, index)
	})
	if err != nil {
		return l.fail(err)
	}
	return nil
}
