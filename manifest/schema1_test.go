package manifest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// old is an entry of a manifest of schema 1. The letter of an id stands for
// 64 of it.
type old struct {
	id, parent string
	os         string
	throwaway  bool
	blob       digest.Digest // of the id, if none
}

func long(id string) string {
	if len(id) == 1 {
		return strings.Repeat(id, 64)
	}
	return id
}

func (o old) digest() digest.Digest {
	if o.blob != "" {
		return o.blob
	}
	return digest.FromString(o.id)
}

// oldManifest is a manifest of schema 1, newest entry first.
func oldManifest(entries ...old) []byte {
	type member = map[string]any
	var layers, history []member
	for _, e := range entries {
		v := member{"id": long(e.id), "os": e.os, "architecture": "amd64", "throwaway": e.throwaway}
		if e.parent != "" {
			v["parent"] = long(e.parent)
		}
		compat, _ := json.Marshal(v)
		layers = append(layers, member{"blobSum": e.digest()})
		history = append(history, member{"v1Compatibility": string(compat)})
	}
	raw, _ := json.Marshal(member{"schemaVersion": 1, "name": "x", "fsLayers": layers, "history": history})
	return raw
}

// sign adds a signature that nobody could verify to the object raw.
func sign(raw []byte) []byte {
	head := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"formatLength":%d,"formatTail":"fQ"}`, len(raw)-1))
	return fmt.Appendf(nil, `%s,"signatures":[{"protected":%q}]}`, raw[:len(raw)-1], head)
}

// oldStore tells sizes, too.
type oldStore struct {
	*store
	mu    sync.Mutex
	sized []digest.Digest // under mu
	sizes map[digest.Digest]int64
}

func (s *oldStore) BlobSize(_ context.Context, ref reference.Named, d digest.Digest) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sized = append(s.sized, d)
	if size, ok := s.sizes[d]; ok && ref.Name() == "docker.io/test/image" {
		return size, nil
	}
	return 0, errors.New("no such blob")
}

// serve tags raw as x, under the digest that its server has for it.
func serve(t *testing.T, mediaType string, raw []byte) *oldStore {
	t.Helper()
	payload, err := schema1.Payload(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := &oldStore{store: newStore(), sizes: map[digest.Digest]int64{}}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(payload), Size: int64(len(raw))}
	s.docs[d.Digest] = raw
	s.tag("x", d)
	for i, id := range []string{"a", "b", "c", "d", "e"} {
		s.sizes[digest.FromString(id)] = int64(100 + i)
	}
	return s
}

func TestSchema1(t *testing.T) {
	t.Parallel()
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.FromString("c")
	for _, tc := range []struct {
		name   string
		raw    []byte
		layers []digest.Digest
		empty  []bool // history, oldest first
	}{
		{"one", oldManifest(old{id: "a"}), []digest.Digest{a}, []bool{false}},
		{"newest first", oldManifest(old{id: "c", parent: "b"}, old{id: "b", parent: "a"}, old{id: "a"}), []digest.Digest{a, b, c}, []bool{false, false, false}},
		{"throwaway", oldManifest(old{id: "c", parent: "b"}, old{id: "b", parent: "a", throwaway: true}, old{id: "a"}), []digest.Digest{a, c}, []bool{false, true, false}},
		{"empty layer", oldManifest(old{id: "b", parent: "a", blob: emptyLayer}, old{id: "a"}), []digest.Digest{a}, []bool{false, true}},
		{"nothing but empty layers", oldManifest(old{id: "a", throwaway: true}), nil, []bool{true}},
		{"repeated, the lower one stays", oldManifest(old{id: "b", parent: "a"}, old{id: "a", blob: c}, old{id: "a", blob: c}, old{id: "a"}), []digest.Digest{a, b}, []bool{false, false}},
		{"one blob twice", oldManifest(old{id: "b", parent: "a", blob: a}, old{id: "a"}), []digest.Digest{a, a}, []bool{false, false}},
		{"Windows on a base that is elsewhere", oldManifest(old{id: "a", parent: "d", os: "windows"}), []digest.Digest{a}, []bool{false}},
	} {
		for _, mediaType := range []string{schema1.MediaType, schema1.MediaTypeSigned + "; charset=utf-8", "application/json; charset=utf-8", ""} {
			for kind, raw := range map[string][]byte{schema1.MediaType: tc.raw, schema1.MediaTypeSigned: sign(tc.raw)} {
				t.Run(tc.name+"/"+mediaType+"/"+kind, func(t *testing.T) {
					t.Parallel()
					s := serve(t, mediaType, raw)
					img, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), platform(t, "windows/amd64"))
					if err != nil {
						t.Fatal(err)
					}
					if !img.Schema1 || img.Artifact || !img.DiffIDsUnknown() || img.Desc.MediaType != kind ||
						img.Desc.Digest != digest.FromBytes(tc.raw) || img.Top.Digest != img.Desc.Digest || img.Manifest.Config.Digest != "" {
						t.Errorf("got %+v", img)
					}
					checkOldLayers(t, img.Layers, tc.layers)
					if n := len(slices.Compact(slices.Sorted(slices.Values(s.sized)))); n != len(s.sized) {
						t.Errorf("a size was asked for twice: %v", s.sized)
					}
					checkOldConfig(t, s, img, tc.empty)
				})
			}
		}
	}
}

func checkOldLayers(t *testing.T, got []ocispec.Descriptor, want []digest.Digest) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d layers, want %d", len(got), len(want))
	}
	for i, l := range got {
		size := int64(100 + slices.Index([]digest.Digest{digest.FromString("a"), digest.FromString("b"), digest.FromString("c")}, l.Digest))
		if l.Digest != want[i] || l.Size != size || l.MediaType != dockerLayer+".gzip" {
			t.Errorf("layer %d is %v", i, l)
		}
	}
}

func checkOldConfig(t *testing.T, s *oldStore, img *Image, empty []bool) {
	t.Helper()
	before, err := LoadConfig(t.Context(), s, img)
	if err != nil {
		t.Fatal(err)
	}
	diffIDs := slices.Repeat([]digest.Digest{someDigest}, len(img.Layers))
	after, err := CompleteConfig(img, diffIDs)
	if err != nil {
		t.Fatal(err)
	}
	if len(before.DiffIDs()) != 0 || !slices.Equal(after.DiffIDs(), diffIDs) || after.Architecture != "amd64" {
		t.Errorf("diffIDs %v, then %v", before.DiffIDs(), after.DiffIDs())
	}
	if err := Verify(after.Raw, img.Manifest.Config); err != nil {
		t.Error(err)
	}
	for _, c := range []*Config{before, after} {
		var got []bool
		for _, h := range c.History {
			got = append(got, h.EmptyLayer)
		}
		if diff := cmp.Diff(empty, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := CompleteConfig(img, append(diffIDs, someDigest)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a diffID too many: %v", err)
	}
}

func TestSchema1Errors(t *testing.T) {
	t.Parallel()
	edit := func(from, to string) []byte {
		raw := strings.Replace(string(oldManifest(old{id: "b", parent: "a"}, old{id: "a"})), from, to, 1)
		return []byte(raw)
	}
	for _, tc := range []struct {
		name string
		raw  []byte
		text string
	}{
		{"no layers", oldManifest(), "0 fsLayers and 0 entries of history"},
		{"more layers than history", edit(`"fsLayers":[`, `"fsLayers":[{"blobSum":"`+someDigest+`"},`), "3 fsLayers and 2 entries"},
		{"fsLayers of another type", edit(`"fsLayers":[`, `"fsLayers":1,"fslayers":[1,`), "fsLayers"},
		{"blobSum is no digest", oldManifest(old{id: "a", blob: "sha256:../x"}), `history: entry 1 of 1: blobSum: malformed document: digest "sha256:../x"`},
		{"history is not JSON", edit(`"v1Compatibility":"{`, `"v1Compatibility":"`), "history: entry 1 of 2: malformed document: v1Compatibility"},
		{"id is none", oldManifest(old{id: "../../etc"}), `the id is "../../etc", want 64 digits`},
		{"no id", oldManifest(old{}), `the id is ""`},
		{"missing base", oldManifest(old{id: "b", parent: "a"}), "the oldest layer " + long("b") + ` has the parent "` + long("a")},
		{"other parent", oldManifest(old{id: "c", parent: "a"}, old{id: "b", parent: "a"}, old{id: "a"}), "the parent of " + long("c") + ` is "` + long("a") + `", but the layer below it is ` + long("b")},
		{"no parent", oldManifest(old{id: "b"}, old{id: "a"}), "the parent of " + long("b") + ` is "", but`},
		{"circle", oldManifest(old{id: "a", parent: "b"}, old{id: "b", parent: "a"}, old{id: "a"}), "the id " + long("a") + " occurs again above " + long("b")},
		{"too many layers", oldManifest(chain(maxLayers + 1)...), "513 layers, more than 512"},
		{"too much history", oldManifest(make([]old, maxHistory+1)...), "fsLayers: more than 8192"},
		{"blob without size", oldManifest(old{id: "f"}), "no such blob"},
		{"signature over something else", []byte(strings.Replace(string(sign(oldManifest(old{id: "a"}))), `"formatTail`, `"x`, 1)), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "", tc.raw)
			s.sizes[digest.FromString("")] = 1
			_, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), platform(t, "linux/amd64"))
			if tc.text == "" {
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "docker.io/test/image:x: ") || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want it to hold %q", err, tc.text)
			}
		})
	}
}

func chain(n int) []old {
	var list []old
	for i := range n {
		o := old{id: fmt.Sprintf("%064x", n-i)}
		if i < n-1 {
			o.parent = fmt.Sprintf("%064x", n-i-1)
		}
		list = append(list, o)
	}
	return list
}

// What lies outside the payload does not count, even if it looks like the same
// members again.
func TestSchema1Payload(t *testing.T) {
	t.Parallel()
	signed := string(sign(oldManifest(old{id: "a"})))
	forged := []byte(strings.TrimSuffix(signed, "}") + `,"fsLayers":[{"blobSum":"` + string(digest.FromString("b")) + `"}]}`)
	s := serve(t, schema1.MediaTypeSigned, forged)
	for _, ref := range []string{"test/image:x", "test/image@" + s.tags["x"].Digest.String()} {
		img, err := Resolve(t.Context(), s, parseRef(t, ref), platform(t, "linux/amd64"))
		if err != nil || img.Layers[0].Digest != digest.FromString("a") {
			t.Errorf("%s: got %v, %v", ref, img, err)
		}
	}
	d := digest.FromBytes(forged)
	s.docs[d] = forged
	if _, err := Resolve(t.Context(), s, parseRef(t, "test/image@"+d.String()), platform(t, "linux/amd64")); !errors.Is(err, ErrVerify) {
		t.Errorf("pinned to the digest of all bytes: %v", err)
	}
	s.tag("x", ocispec.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: d, Size: int64(len(forged))})
	img, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), platform(t, "linux/amd64"))
	if err != nil || img.Desc.Digest == d || img.Layers[0].Digest != digest.FromString("a") {
		t.Errorf("a fetcher that hashed all bytes: %v, %v", img, err)
	}
	// A manifest that is signed must not stand for one of another kind.
	other := newStore().image(t, "linux/amd64")
	raw := []byte(`{"schemaVersion":2,"layers":[],"config":{},"signatures":[{"protected":"` +
		base64.RawURLEncoding.EncodeToString([]byte(`{"formatLength":0,"formatTail":"`+base64.RawURLEncoding.EncodeToString([]byte("{}"))+`"}`)) + `"}]}`)
	s.docs[other.Digest] = raw
	if err := VerifyManifest(raw, ocispec.Descriptor{Digest: digest.FromString("{}"), Size: 2}); err != nil {
		t.Error(err)
	}
	_, _, err = ReadManifest(ocispec.Descriptor{Digest: digest.FromString("{}"), Size: 2}, raw)
	if !errors.Is(err, ErrVerify) {
		t.Errorf("schema 2 in a signature: %v", err)
	}
}

// TestSchema1ID compares configurations with those that skopeo 1.9.3 makes of
// the same manifests; they are the images' IDs in Docker.
func TestSchema1ID(t *testing.T) {
	t.Parallel()
	diffIDs := tricky()["gz"].diffIDs
	for _, tc := range []struct {
		name, file string
		id         digest.Digest
	}{
		{"vector", "../../shared/vectors/tricky-schema1/manifest.json", "sha256:306fc9a8b22c0c5fa58d9051f4b674a8321385b01a4bd58420d6ab23eebfb897"},
		{"before 1.8.3", "testdata/schema1-docker-1.7.0.json", "sha256:627ff5fb98da44ed94e511dab12b65e4ee31b4388f83cf3dddcd7ce18fdf69fd"},
		{"since 1.8.3", "testdata/schema1-docker-1.8.3.json", "sha256:dd52f36d2f28c50cd959568d6baf85c126e8a43dd6ed12c93d59ef9905be7ac3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.FromSlash(tc.file))
			if errors.Is(err, os.ErrNotExist) && tc.name == "vector" {
				t.Log("the shared vectors are absent")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, "application/json", raw)
			for _, d := range []digest.Digest{
				"sha256:148ab94e57ed7efe9f8ae14b086966b8901b8622287021e9b7a389aae36a1269",
				"sha256:0c0b3604ee9e0bbca3ad8c24e41b4a33c77cd005cdf155b07d908299609bc7b3",
				"sha256:df624e159a9e2762a4cdf22e04b48c514064560ffdaf6e65c5ded6842e700746",
			} {
				s.sizes[d] = 1
			}
			img, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), platform(t, "linux/amd64"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := CompleteConfig(img, diffIDs)
			if err != nil {
				t.Fatal(err)
			}
			if img.Manifest.Config.Digest != tc.id {
				t.Errorf("got %s:\n%s", img.Manifest.Config.Digest, c.Raw)
			}
		})
	}
}

// The well-known digest is that of these 32 bytes.
func TestEmptyLayer(t *testing.T) {
	t.Parallel()
	b := []byte{
		31, 139, 8, 0, 0, 9, 110, 136, 0, 255, 98, 24, 5, 163, 96, 20,
		140, 88, 0, 8, 0, 0, 255, 255, 46, 175, 181, 239, 0, 4, 0, 0,
	}
	if got := digest.FromBytes(b); got != emptyLayer {
		t.Errorf("got %s", got)
	}
}

// TestSchema1RepeatedTop: where the newest entry repeats the one below it,
// that one is the image.
func TestSchema1RepeatedTop(t *testing.T) {
	t.Parallel()
	s := serve(t, "", oldManifest(old{id: "a", os: "plan9"}, old{id: "a", os: "linux"}))
	img, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), platform(t, "linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(t.Context(), s, img)
	if err != nil || c.OS != "linux" {
		t.Errorf("it is of %v, %v", c, err)
	}
}
