package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageOS is the operating system of images when nobody names another,
// whatever peel itself runs on: browsing works on all of them.
const imageOS = "linux"

// DefaultPlatform is Linux on this machine's processor.
func DefaultPlatform() ocispec.Platform {
	host := platforms.DefaultSpec()
	return platforms.Normalize(ocispec.Platform{
		OS:           imageOS,
		Architecture: host.Architecture,
		Variant:      host.Variant,
	})
}

// ParsePlatform reads os/arch[/variant], or os or arch alone. Common other
// names (x86_64, aarch64) are understood. The error is an ErrPlatform.
func ParsePlatform(s string) (ocispec.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil || len(s) > maxQuoted {
		return ocispec.Platform{}, fmt.Errorf("%w %s; write os/arch or os/arch/variant, for example linux/arm64",
			ErrPlatform, quote(s))
	}
	if !strings.Contains(s, "/") {
		// An operating system alone got this machine's processor, as it should;
		// a processor alone got this machine's operating system.
		if named, err := platforms.Parse(s + "/" + p.Architecture); err != nil || named.OS != p.OS {
			p.OS = imageOS
		}
	}
	return platforms.Normalize(p), nil
}

// maxOffered bounds how many platforms an error lists.
const maxOffered = 24

// noPlatform is the error for an image that is not there for want but for the
// platforms named in offered.
func noPlatform(want ocispec.Platform, offered []string) error {
	list := slices.Compact(slices.Sorted(slices.Values(offered)))
	if len(list) == 0 {
		return fmt.Errorf("%w %s, nor for any other", ErrNoPlatform, platformName(want))
	}
	if more := len(list) - maxOffered; more > 0 {
		list = append(list[:maxOffered], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w %s; choose one of these with --platform: %s",
		ErrNoPlatform, platformName(want), strings.Join(list, ", "))
}

// platformName is for messages; p may come from outside.
func platformName(p ocispec.Platform) string {
	name := platforms.FormatAll(platforms.Normalize(p))
	if quoted := quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// Marks of the entries in which BuildKit keeps provenance and bills of
// material of an image beside it.
const (
	annotationKind  = "vnd.docker.reference.type"
	kindAttestation = "attestation-manifest"
	attestationType = "application/vnd.docker.attestation.manifest.v1+json"
)

// isAttestation recognises such an entry.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations[annotationKind] == kindAttestation || d.ArtifactType == attestationType ||
		d.Platform != nil && isNowhere(*d.Platform)
}

// isNowhere: attestations are for no platform.
func isNowhere(p ocispec.Platform) bool { return p.OS == "unknown" && p.Architecture == "unknown" }

// isUnstated: some tools write configurations without a platform.
func isUnstated(p ocispec.Platform) bool { return p.OS == "" || p.Architecture == "" }
