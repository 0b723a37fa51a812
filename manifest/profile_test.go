package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// profileFor makes up a profile of n touches of two layers.
func profileFor(n int) *Profile {
	p := &Profile{
		Image: digest.FromString("image"), Entrypoint: "web server", Runs: 3, Updated: time.Unix(1_700_000_000, 0).UTC(),
		Layers: []ProfileLayer{{digest.FromString("a"), maxProfileSpace}, {digest.FromString("b"), maxProfileSpace}},
	}
	for i := range n {
		p.Touches = append(p.Touches, ProfileTouch{Layer: i % 2, Addr: int64(i) << 20, Len: 1 << 20, At: int64(i / 3), Weight: 1 + i%MaxProfileWeight})
	}
	return p
}

func TestProfile(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1000, MaxProfileTouches} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			want := profileFor(n)
			packed, err := want.Pack()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d touches: %d bytes", n, len(packed))
			got, err := UnpackProfile(packed)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			again, err := got.Pack()
			if err != nil || !bytes.Equal(packed, again) {
				t.Errorf("packed again it differs: %v", err)
			}
		})
	}
}

func TestHostileProfile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(p *Profile)
	}{
		{"no image", func(p *Profile) { p.Image = "" }},
		{"entrypoint of control characters", func(p *Profile) { p.Entrypoint = "\x1b[2J" }},
		{"long entrypoint", func(p *Profile) { p.Entrypoint = strings.Repeat("x", maxEntrypoint+1) }},
		{"negative runs", func(p *Profile) { p.Runs = -1 }},
		{"year 10000", func(p *Profile) { p.Updated = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"a layer twice", func(p *Profile) { p.Layers[1] = p.Layers[0] }},
		{"a layer without a digest", func(p *Profile) { p.Layers[1].Digest = "sha256:x" }},
		{"a huge layer", func(p *Profile) { p.Layers[1].Space = maxProfileSpace + 1 }},
		{"too many touches", func(p *Profile) { p.Touches = profileFor(MaxProfileTouches + 1).Touches }},
		{"unknown layer", func(p *Profile) { p.Touches[0].Layer = 2 }},
		{"negative layer", func(p *Profile) { p.Touches[0].Layer = -1 }},
		{"negative address", func(p *Profile) { p.Touches[0].Addr = -1 }},
		{"beyond the layer", func(p *Profile) { p.Touches[0].Addr = maxProfileSpace }},
		{"overflow", func(p *Profile) { p.Touches[0].Len = 1<<63 - 1 }},
		{"nothing", func(p *Profile) { p.Touches[0].Len = 0 }},
		{"back in time", func(p *Profile) { slices.Reverse(p.Touches) }},
		{"late", func(p *Profile) { p.Touches[len(p.Touches)-1].At = maxProfileTime + 1 }},
		{"no weight", func(p *Profile) { p.Touches[0].Weight = 0 }},
		{"too much weight", func(p *Profile) { p.Touches[0].Weight = MaxProfileWeight + 1 }},
		{"overlapping", func(p *Profile) { p.Touches[2].Addr = p.Touches[0].Len - 1 }},
		{"a touch twice", func(p *Profile) { p.Touches[2] = p.Touches[0] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := profileFor(100)
			tc.change(p)
			if _, err := p.Encode(); !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestForeignProfile(t *testing.T) {
	t.Parallel()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zip := func(s string) []byte { return w.EncodeAll([]byte(s), nil) }
	const head = `"image":"` + someDigest + `","runs":1,"updated":"2026-01-01T00:00:00Z","layers":[{"digest":"` + someDigest + `","space":100}]`
	for _, tc := range []struct {
		name string
		data []byte
		want error
	}{
		{"good", zip(`{"version":1,"later":true,` + head + `,"touches":[[0,0,10,0,1000]]}`), nil},
		{"empty", nil, ErrMalformed},
		{"not packed", []byte("{}"), ErrMalformed},
		{"cut off", zip(strings.Repeat("x", 10_000))[:9], ErrMalformed},
		{"bomb", zip(strings.Repeat(" ", maxProfile+1)), ErrMalformed},
		{"long", make([]byte, maxPackedProfile+1), ErrMalformed},
		{"of another version", zip(`{"version":2}`), ErrUnsupported},
		{"no JSON", zip("x"), ErrMalformed},
		{"touches no list", zip(`{"version":1,` + head + `,"touches":{}}`), ErrMalformed},
		{"a touch of four members", zip(`{"version":1,` + head + `,"touches":[[0,0,10,0]]}`), ErrMalformed},
		{"a touch of six members", zip(`{"version":1,` + head + `,"touches":[[0,0,10,0,1,1]]}`), ErrMalformed},
		{"a touch of words", zip(`{"version":1,` + head + `,"touches":[["a"]]}`), ErrMalformed},
		{"a touch of no layer", zip(`{"version":1,` + head + `,"touches":[[4294967296,0,10,0,1]]}`), ErrMalformed},
		{"a fraction", zip(`{"version":1,` + head + `,"touches":[[0,0.5,10,0,1]]}`), ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := UnpackProfile(tc.data); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func FuzzParseProfile(f *testing.F) {
	for _, n := range []int{0, 1, 7} {
		raw, err := profileFor(n).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParseProfile(raw)
		if err != nil {
			return
		}
		again, err := p.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		q, err := ParseProfile(again)
		if err != nil || !p.Equal(q) {
			t.Errorf("read again: %v", err)
		}
	})
}

func sharedProfile() SharedProfile {
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 5}
	return SharedProfile{
		Subject: &subject, Entrypoint: "web", Updated: time.Unix(1_700_000_000, 0).UTC(),
		Blob: ocispec.Descriptor{MediaType: ProfileType, Digest: digest.FromString("profile"), Size: 7},
	}
}

func TestSharedProfile(t *testing.T) {
	t.Parallel()
	want := sharedProfile()
	raw, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSharedProfile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	listed, ok := ProfileOf(asReferrer(t, raw))
	want.Subject = nil
	if d := cmp.Diff(want, listed); d != "" || !ok {
		t.Errorf("as listed, %t: %s", ok, d)
	}
	for _, tc := range []struct {
		name, old, new string
		want           error
	}{
		{"of another type", ProfileArtifactType, "application/x", ErrArtifact},
		{"without the annotation", annotationProfile, "x", ErrMalformed},
		{"whose annotation names another blob", `\"size\":7`, `\"size\":8`, ErrMalformed},
		{"whose annotation is none", `{\"entrypoint\"`, `[\"entrypoint\"`, ErrMalformed},
		{"with a wrong entrypoint", `:\"web\"`, `:\"\\u0000\"`, ErrMalformed},
		{"of a wrong subject", digest.FromString("image").String(), "sha256:x", ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bad := strings.ReplaceAll(string(raw), tc.old, tc.new)
			if bad == string(raw) {
				t.Fatal("nothing was changed")
			}
			if _, err := ParseSharedProfile([]byte(bad)); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
	if _, ok := ProfileOf(ocispec.Descriptor{ArtifactType: IndexArtifactType}); ok {
		t.Error("an index passes for a profile")
	}
}
