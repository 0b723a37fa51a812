package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/jsonlist"
)

// Limits of a profile.
const (
	MaxProfileTouches = 1 << 16
	maxProfile        = 16 << 20            // bytes, unpacked
	maxPackedProfile  = 4 << 20             // bytes, as it travels
	maxProfileTime    = 24 * 60 * 60 * 1000 // milliseconds
	maxProfileSpace   = 1 << 40             // bytes of a layer's address space
	MaxProfileRuns    = math.MaxInt32       // of which the weights still tell
	maxEntrypoint     = 255                 // bytes
	MaxProfileWeight  = 1000                // of what every run has read
	profileVersion    = 1
)

// Profile says what a workload reads of an image first. It names addresses of
// layers, not spans, and so fits any index of the layer.
type Profile struct {
	Image      digest.Digest // the platform's manifest
	Entrypoint string        // which workload; "" where nobody says
	Runs       int           // that were merged into it
	Updated    time.Time     // when the last run ended, to the second
	Layers     []ProfileLayer
	Touches    []ProfileTouch // in the order of At; those of a layer do not overlap
}

// ProfileLayer is a layer that a profile speaks of.
type ProfileLayer struct {
	Digest digest.Digest `json:"digest"`
	Space  int64         `json:"space"` // bytes of its address space, which tells one way to index it from another
}

// ProfileTouch says that the addresses [Addr, Addr+Len) of a layer were read.
type ProfileTouch struct {
	Layer  int // row in Profile.Layers
	Addr   int64
	Len    int64
	At     int64 // milliseconds since the first touch of the run
	Weight int   // of runs, the later ones counting more, that have read it: 1 to MaxProfileWeight
}

// MarshalJSON writes a list of the members, as there are many touches.
func (t ProfileTouch) MarshalJSON() ([]byte, error) {
	return json.Marshal([...]int64{int64(t.Layer), t.Addr, t.Len, t.At, int64(t.Weight)})
}

// UnmarshalJSON is the reverse.
func (t *ProfileTouch) UnmarshalJSON(b []byte) error {
	list, err := jsonlist.Decode[int64](b, 5)
	if err != nil {
		return err
	}
	if len(list) != 5 {
		return fmt.Errorf("a touch of %d members", len(list))
	}
	if list[0] < 0 || list[0] >= maxLayers || list[4] < 1 || list[4] > MaxProfileWeight {
		return fmt.Errorf("a touch of layer %d with weight %d", list[0], list[4])
	}
	*t = ProfileTouch{Layer: int(list[0]), Addr: list[1], Len: list[2], At: list[3], Weight: int(list[4])}
	return nil
}

// profileForm is a profile as it is written; readers of a version pass by what
// they do not know in it.
type profileForm struct {
	Version    int             `json:"version"`
	Image      digest.Digest   `json:"image"`
	Entrypoint string          `json:"entrypoint,omitempty"`
	Runs       int             `json:"runs"`
	Updated    time.Time       `json:"updated"`
	Layers     json.RawMessage `json:"layers"`
	Touches    json.RawMessage `json:"touches"` // each [layer, address, length, milliseconds, weight]
}

// Encode writes p as JSON. The same profile gives the same bytes. It fails if p
// breaks a limit.
func (p *Profile) Encode() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	layers, err := json.Marshal(append([]ProfileLayer{}, p.Layers...))
	if err != nil {
		return nil, err
	}
	touches, err := json.Marshal(append([]ProfileTouch{}, p.Touches...))
	if err != nil {
		return nil, err
	}
	return json.Marshal(profileForm{
		Version: profileVersion, Image: p.Image, Entrypoint: p.Entrypoint,
		Runs: p.Runs, Updated: p.Updated.UTC().Truncate(time.Second), Layers: layers, Touches: touches,
	})
}

// ParseProfile reads what Encode wrote; raw may be anything. The errors are
// ErrMalformed and, for another version, ErrUnsupported.
func ParseProfile(raw []byte) (*Profile, error) {
	if len(raw) > maxProfile {
		return nil, fmt.Errorf("%w: a profile of %d bytes, at most %d", ErrMalformed, len(raw), maxProfile)
	}
	var f profileForm
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("%w: profile: %w", ErrMalformed, err)
	}
	if f.Version != profileVersion {
		return nil, fmt.Errorf("a profile of version %d is %w", f.Version, ErrUnsupported)
	}
	p := &Profile{Image: f.Image, Entrypoint: f.Entrypoint, Runs: f.Runs, Updated: f.Updated.UTC()}
	var err error
	if p.Layers, err = jsonlist.Decode[ProfileLayer](f.Layers, maxLayers); err != nil {
		return nil, fmt.Errorf("%w: layers of a profile: %w", ErrMalformed, err)
	}
	if p.Touches, err = jsonlist.Decode[ProfileTouch](f.Touches, MaxProfileTouches); err != nil {
		return nil, fmt.Errorf("%w: touches of a profile: %w", ErrMalformed, err)
	}
	return p, p.check()
}

// Pack is Encode in the form that travels.
func (p *Profile) Pack() ([]byte, error) {
	raw, err := p.Encode()
	if err != nil {
		return nil, err
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	packed := w.EncodeAll(raw, nil)
	if len(packed) > maxPackedProfile {
		return nil, fmt.Errorf("%w: a profile of %d bytes, at most %d", ErrMalformed, len(packed), maxPackedProfile)
	}
	return packed, nil
}

// UnpackProfile reads what Pack wrote; data may be anything.
func UnpackProfile(data []byte) (*Profile, error) {
	if len(data) > maxPackedProfile {
		return nil, fmt.Errorf("%w: a profile of %d bytes, at most %d", ErrMalformed, len(data), maxPackedProfile)
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxProfile))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := r.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: profile: %w", ErrMalformed, err)
	}
	return ParseProfile(raw)
}

// check compares a profile with the limits.
func (p *Profile) check() error {
	if err := checkDigest(p.Image); err != nil {
		return fmt.Errorf("image of a profile: %w", err)
	}
	if err := CheckEntrypoint(p.Entrypoint); err != nil {
		return err
	}
	if len(p.Layers) > maxLayers || len(p.Touches) > MaxProfileTouches || p.Runs < 0 || p.Runs > MaxProfileRuns {
		return fmt.Errorf("%w: a profile of %d layers, %d touches and %d runs", ErrMalformed, len(p.Layers), len(p.Touches), p.Runs)
	}
	if y := p.Updated.Year(); y < 1 || y > 9999 {
		return fmt.Errorf("%w: a profile of the year %d", ErrMalformed, y)
	}
	seen := make(map[digest.Digest]bool, len(p.Layers))
	for _, l := range p.Layers {
		if err := checkDigest(l.Digest); err != nil {
			return fmt.Errorf("layer of a profile: %w", err)
		}
		if seen[l.Digest] || l.Space < 0 || l.Space > maxProfileSpace {
			return fmt.Errorf("%w: layer %s of a profile comes twice, or has %d bytes", ErrMalformed, l.Digest, l.Space)
		}
		seen[l.Digest] = true
	}
	return p.checkTouches()
}

// checkTouches also refuses touches of one layer that overlap.
func (p *Profile) checkTouches() error {
	last := int64(0)
	for i, t := range p.Touches {
		if t.Layer < 0 || t.Layer >= len(p.Layers) {
			return fmt.Errorf("%w: touch %d of a profile is of layer %d of %d", ErrMalformed, i, t.Layer, len(p.Layers))
		}
		space := p.Layers[t.Layer].Space
		if t.Addr < 0 || t.Len <= 0 || t.Addr > space || t.Len > space-t.Addr {
			return fmt.Errorf("%w: touch %d of a profile is of [%d, +%d) of %d bytes", ErrMalformed, i, t.Addr, t.Len, space)
		}
		if t.At < last || t.At > maxProfileTime || t.Weight < 1 || t.Weight > MaxProfileWeight {
			return fmt.Errorf("%w: touch %d of a profile: after %d ms, of weight %d", ErrMalformed, i, t.At, t.Weight)
		}
		last = t.At
	}
	places := slices.SortedFunc(slices.Values(p.Touches), ComparePlaces)
	for i := 1; i < len(places); i++ {
		if a, b := places[i-1], places[i]; a.Layer == b.Layer && a.Addr+a.Len > b.Addr {
			return fmt.Errorf("%w: touches of a profile overlap at %d", ErrMalformed, b.Addr)
		}
	}
	return nil
}

// ComparePlaces orders touches by what was touched: layer, then address.
func ComparePlaces(a, b ProfileTouch) int {
	return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Addr, b.Addr))
}

// CheckEntrypoint refuses what is no name of a workload: it has at most 255
// bytes, all of them printable.
func CheckEntrypoint(name string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if len(name) > maxEntrypoint || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%w: the entrypoint %s, want at most %d bytes that can be printed", ErrMalformed, quote(name), maxEntrypoint)
	}
	return nil
}

// Equal reports whether two profiles say the same.
func (p *Profile) Equal(q *Profile) bool {
	a, err := p.Encode()
	if err != nil {
		return false
	}
	b, err := q.Encode()
	return err == nil && bytes.Equal(a, b)
}
