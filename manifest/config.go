package manifest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
)

const maxHistory = 8192 // entries; most of them make no layer

// Config is an image's configuration.
type Config struct {
	ocispec.Image
	Raw []byte `json:"-"`
}

// DiffIDs are the digests of the uncompressed layers, parallel to
// Image.Layers.
func (c *Config) DiffIDs() []digest.Digest { return c.RootFS.DiffIDs }

// LoadConfig reads the configuration of img, checks it against the manifest
// and, where no index has told the platform, that it is the one asked for. It
// has no diffIDs if img.DiffIDsUnknown, and that of an artifact nothing but
// the platform.
func LoadConfig(ctx context.Context, f Fetcher, img *Image) (*Config, error) {
	c, err := loadConfig(ctx, f, img)
	if err != nil {
		return nil, err
	}
	if img.Desc.Platform == nil && !accepts(img.Platform, c.Platform) {
		return nil, about(img.Reference, noPlatform(img.Platform, []string{platformName(c.Platform)}))
	}
	return c, nil
}

func loadConfig(ctx context.Context, f Fetcher, img *Image) (*Config, error) {
	switch {
	case img.v1 != nil:
		c, err := loadSchema1(img)
		if err != nil {
			return nil, about(img.Reference, fmt.Errorf("config: %w", err))
		}
		return c, nil
	case img.Artifact:
		return artifactConfig(img, nil)
	}
	return readConfig(ctx, f, img.Reference, &img.Manifest)
}

// accepts is looser than the choice from an index, where the right image may
// be the next: variants of processors are seldom right in configurations, and
// some have no platform at all.
func accepts(want, have ocispec.Platform) bool {
	if isUnstated(have) || platforms.Only(want).Match(have) {
		return true
	}
	want, have = platforms.Normalize(want), platforms.Normalize(have)
	return want.OS == have.OS && want.Architecture == have.Architecture
}

func readConfig(ctx context.Context, f Fetcher, ref Reference, m *ocispec.Manifest) (*Config, error) {
	raw := embedded(m.Config)
	if raw == nil {
		var err error
		if raw, err = f.Blob(ctx, ref.repository(), m.Config); err != nil {
			return nil, err
		}
	}
	c, err := parseConfig(m, raw)
	if err != nil {
		return nil, about(ref, fmt.Errorf("config %s: %w", m.Config.Digest, err))
	}
	return c, nil
}

func parseConfig(m *ocispec.Manifest, raw []byte) (*Config, error) {
	if err := Verify(raw, m.Config); err != nil {
		return nil, err
	}
	c, err := decodeConfig(raw)
	if err != nil {
		return nil, err
	}
	if err := checkDiffIDs(c.RootFS.DiffIDs, len(m.Layers)); err != nil {
		return nil, err
	}
	return c, nil
}

func checkDiffIDs(diffIDs []digest.Digest, layers int) error {
	if len(diffIDs) != layers {
		return fmt.Errorf("%w: %d diff_ids for %d layers", ErrMalformed, len(diffIDs), layers)
	}
	for _, d := range diffIDs {
		if err := checkDigest(d); err != nil {
			return fmt.Errorf("diff_ids: %w", err)
		}
	}
	return nil
}

// decodeConfig reads a configuration within limits.
func decodeConfig(raw []byte) (*Config, error) {
	var doc struct {
		ocispec.Image
		RootFS struct {
			Type    string          `json:"type"`
			DiffIDs json.RawMessage `json:"diff_ids"`
		} `json:"rootfs"`
		History json.RawMessage `json:"history"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	diffIDs, err := jsonlist.Decode[digest.Digest](doc.RootFS.DiffIDs, maxLayers)
	if err != nil {
		return nil, fmt.Errorf("%w: diff_ids: %w", ErrMalformed, err)
	}
	history, err := jsonlist.Decode[ocispec.History](doc.History, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("%w: history: %w", ErrMalformed, err)
	}
	c := &Config{Image: doc.Image, Raw: raw}
	c.RootFS = ocispec.RootFS{Type: doc.RootFS.Type, DiffIDs: diffIDs}
	c.History = history
	return c, nil
}
