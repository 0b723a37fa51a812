package manifest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// history has the members of a history entry in the order in which Docker
// wrote them, on which the image's ID depends.
type history struct {
	Created    *time.Time `json:"created,omitempty"`
	Author     string     `json:"author,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// config makes the configuration that Docker 1.10 to 25 and skopeo made of a
// manifest of schema 1: that of the newest entry without what ties it to
// others, and with the layers and the history that were spread over all of
// them. Its digest is the ID that the image had there, if all its empty layers
// are called throwaway: those of Docker before 1.10 were not, and were layers.
func (v *schema1Image) config(diffIDs []digest.Digest) ([]byte, error) {
	raw, err := v.entries[len(v.entries)-1].canonical()
	if err != nil {
		return nil, fmt.Errorf("%w: history: entry 1: %w", ErrMalformed, err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("%w: history: entry 1: %w", ErrMalformed, err)
	}
	for _, name := range []string{"id", "parent", "parent_id", "layer_id", "throwaway", "Size"} {
		delete(members, name)
	}
	rootfs := struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids,omitempty"`
	}{"layers", diffIDs}
	if members["rootfs"], err = json.Marshal(rootfs); err != nil {
		return nil, err
	}
	if members["history"], err = json.Marshal(v.history()); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// canonical is an entry as Docker read it: by the members that Docker then knew
// if a version before 1.8.3 has written it, else as it stands. What states no
// version is of other tools and stands, as for skopeo.
func (e *schema1Entry) canonical() ([]byte, error) {
	var by struct {
		DockerVersion string `json:"docker_version"`
	}
	if err := json.Unmarshal(e.raw, &by); err != nil {
		return nil, err
	}
	if by.DockerVersion == "" || !before183(by.DockerVersion) {
		return e.raw, nil
	}
	var old oldImage
	if err := json.Unmarshal(e.raw, &old); err != nil {
		return nil, err
	}
	return json.Marshal(old)
}

// before183 compares a version of Docker, of which parts may be missing, with
// 1.8.3. What is no number counts as 0.
func before183(version string) bool {
	parts := strings.SplitN(version, ".", 4)
	for i, want := range [...]int{1, 8, 3} {
		have := 0
		if i < len(parts) {
			have, _ = strconv.Atoi(parts[i])
		}
		if have != want {
			return have < want
		}
	}
	return false
}

// oldImage has the members of an image before there were manifests, and the
// order and presence in which Docker wrote them.
type oldImage struct {
	Comment         string     `json:"comment,omitempty"`
	Created         time.Time  `json:"created"`
	Container       string     `json:"container,omitempty"`
	ContainerConfig oldConfig  `json:"container_config"`
	DockerVersion   string     `json:"docker_version,omitempty"`
	Author          string     `json:"author,omitempty"`
	Config          *oldConfig `json:"config,omitempty"`
	Architecture    string     `json:"architecture,omitempty"`
	Variant         string     `json:"variant,omitempty"`
	OS              string     `json:"os,omitempty"`
}

// oldConfig is how containers of an image are to be run.
type oldConfig struct {
	Hostname        string
	Domainname      string
	User            string
	AttachStdin     bool
	AttachStdout    bool
	AttachStderr    bool
	ExposedPorts    map[string]struct{} `json:",omitempty"`
	Tty             bool
	OpenStdin       bool
	StdinOnce       bool
	Env             []string
	Cmd             words
	Healthcheck     json.RawMessage `json:",omitempty"`
	ArgsEscaped     bool            `json:",omitempty"`
	Image           string
	Volumes         map[string]struct{}
	WorkingDir      string
	Entrypoint      words
	NetworkDisabled bool   `json:",omitempty"`
	MacAddress      string `json:",omitempty"`
	OnBuild         []string
	Labels          map[string]string
	StopSignal      string `json:",omitempty"`
	StopTimeout     *int   `json:",omitempty"`
	Shell           words  `json:",omitempty"`
}

// loadSchema1 is the configuration without diffIDs.
func loadSchema1(m *Image) (*Config, error) {
	raw, err := m.v1.config(nil)
	if err != nil {
		return nil, err
	}
	return decodeConfig(raw)
}

// CompleteConfig returns the configuration of an image whose diffIDs were
// unknown, which diffIDs has for m.Layers. That of a manifest of schema 1 is
// put into m.Manifest.Config; its digest is the image's ID. The error is an
// ErrMalformed if the diffIDs do not fit.
func CompleteConfig(m *Image, diffIDs []digest.Digest) (*Config, error) {
	c, err := completeConfig(m, diffIDs)
	if err != nil {
		return nil, about(m.Reference, fmt.Errorf("config: %w", err))
	}
	return c, nil
}

func completeConfig(m *Image, diffIDs []digest.Digest) (*Config, error) {
	if err := checkDiffIDs(diffIDs, len(m.Layers)); err != nil {
		return nil, err
	}
	switch {
	case m.v1 != nil:
		raw, err := m.v1.config(diffIDs)
		if err != nil {
			return nil, err
		}
		m.Manifest.Config = ocispec.Descriptor{
			MediaType: dockerConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
		}
		return parseConfig(&m.Manifest, raw)
	case m.Artifact:
		return artifactConfig(m, diffIDs)
	}
	return nil, fmt.Errorf("%w: its diffIDs are in its configuration", ErrUnsupported)
}
