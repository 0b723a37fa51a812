//go:build linux

package index

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// vectors is the layout of images that other tools have made; false without it.
func vectors(t *testing.T) (layout string, want []testkit.Row, ok bool) {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "vectors")
	want, err := testkit.ReadListing(filepath.Join(dir, "tricky.expected.jsonl"))
	if err != nil {
		t.Logf("the test vectors are not here: %v", err)
		return "", nil, false
	}
	return filepath.Join(dir, "tricky"), want, true
}

func blobOf(t *testing.T, layout string, d digest.Digest) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// manifestOf is a tagged manifest of a layout.
func manifestOf(t *testing.T, layout, tag string) (m ocispec.Manifest) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			if err := json.Unmarshal(blobOf(t, layout, d.Digest), &m); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

// pushSOCI pushes the image "gz", and its SOCI index as "soci" with the zTOCs
// that edit makes of those of the vectors. It returns these.
func pushSOCI(t *testing.T, reg *testkit.Registry, layout string, edit func(m *ocispec.Manifest, ztocs [][]byte)) []ocispec.Descriptor {
	t.Helper()
	reg.Push(t, layout, "gz", "app")
	m := manifestOf(t, layout, "soci-v1")
	var ztocs [][]byte
	for _, d := range m.Layers {
		ztocs = append(ztocs, bytes.Clone(blobOf(t, layout, d.Digest)))
	}
	edit(&m, ztocs)
	l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	for i, raw := range ztocs {
		d, err := l.Blob(m.Layers[i].MediaType, raw)
		if err != nil {
			t.Fatal(err)
		}
		m.Layers[i].Digest, m.Layers[i].Size = d.Digest, d.Size
	}
	if _, err := l.Blob(m.Config.MediaType, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	d, err := l.Document(m.MediaType, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("soci", d); err != nil {
		t.Fatal(err)
	}
	reg.Push(t, l.Dir, "soci", "app")
	return m.Layers
}

// inspected is what peel inspect tells of a layer.
type inspected struct {
	Access string `json:"access"`
	Reason string `json:"reason"`
	Trust  string `json:"trust"`
	Origin string `json:"origin"`
	Index  string `json:"index_digest"`
}

func inspect(t *testing.T, p *testkit.Peel, ref string, flags ...string) []inspected {
	t.Helper()
	var image struct{ Layers []inspected }
	out := p.Must(append(append([]string{"inspect", "--json"}, flags...), ref)...).Stdout
	if err := json.Unmarshal([]byte(out), &image); err != nil || len(image.Layers) == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	return image.Layers
}

// rightOrBroken reads every file below root: each must be what it should be,
// or not be readable at all. It returns how many were not.
func rightOrBroken(t *testing.T, root string, want []testkit.Row) (broken int) {
	t.Helper()
	sums := map[string]string{}
	for _, r := range want {
		sums[r.Path] = r.SHA256
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		sum, err := testkit.Sum(name)
		if err != nil {
			broken++
			return nil //nolint:nilerr // what cannot be read is no wrong byte
		}
		if path := strings.TrimPrefix(name, root); sum != sums[path] {
			t.Errorf("%s: wrong bytes", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return broken
}

// A SOCI index that cannot be right is not used; inspect and the log say so.
func TestFalseSOCI(t *testing.T) {
	t.Parallel()
	layout, want, ok := vectors(t)
	if !ok {
		return
	}
	for _, tc := range []struct {
		name  string
		edit  func(m *ocispec.Manifest, ztocs [][]byte)
		spoil bool // the zTOC of the first layer, in the registry
	}{
		{"cut off", func(_ *ocispec.Manifest, z [][]byte) { z[0] = z[0][:len(z[0])/2] }, false},
		{"one byte long", func(_ *ocispec.Manifest, z [][]byte) { z[0] = z[0][:1] }, false},
		{"of another layer", func(_ *ocispec.Manifest, z [][]byte) { z[0] = z[1] }, false},
		{"not what its digest says", func(*ocispec.Manifest, [][]byte) {}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			pushed := pushSOCI(t, reg, layout, tc.edit)
			if tc.spoil {
				if err := os.WriteFile(reg.BlobFile(pushed[0]), make([]byte, pushed[0].Size), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := testkit.NewPeel(t)
			ref := reg.Ref("app", "soci")
			root := p.Mount(ref)
			layers := inspect(t, p, ref)
			if l := layers[0]; l.Access != "streamed" || l.Trust != "proved" || !strings.Contains(l.Reason, pushed[0].Digest.String()) {
				t.Errorf("the first layer is %+v", l)
			}
			if l := layers[2]; l.Access != "lazy" || l.Trust != "claimed" || l.Index != pushed[2].Digest.String() {
				t.Errorf("the last layer is %+v", l)
			}
			if log := p.Logs(); !strings.Contains(log, pushed[0].Digest.String()) {
				t.Errorf("the log does not name the index:\n%s", log)
			}
			rows, err := testkit.List(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range testkit.Differences(want, rows, testkit.Exact) {
				t.Error(d)
			}
		})
	}
}

// A SOCI index that is coherent but wrong about the data makes reads fail, and
// never gives a wrong byte.
func TestLyingSOCI(t *testing.T) {
	t.Parallel()
	layout, want, ok := vectors(t)
	if !ok {
		return
	}
	for _, tc := range []struct {
		name string
		edit func(m *ocispec.Manifest, ztocs [][]byte)
		says string
	}{
		// Most of this zTOC, and all of its first half, is the windows of its
		// checkpoints.
		{"a window", func(_ *ocispec.Manifest, z [][]byte) {
			for i := range 1000 {
				z[0][len(z[0])/3+i] ^= 1
			}
		}, "window"},
		{"digests of spans", func(_ *ocispec.Manifest, z [][]byte) {
			sum := []byte("sha256:")
			at := bytes.LastIndex(z[0], sum) + len(sum)
			for i := range 64 {
				z[0][at+i] = '0'
			}
		}, "expected sha256:0000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			pushed := pushSOCI(t, reg, layout, tc.edit)
			p := testkit.NewPeel(t)
			ref := reg.Ref("app", "soci")
			root := p.Mount(ref)
			if l := inspect(t, p, ref)[0]; l.Access != "lazy" || l.Index != pushed[0].Digest.String() {
				t.Errorf("the first layer is %+v", l)
			}
			if n := rightOrBroken(t, root, want); n == 0 {
				t.Error("every file could be read")
			}
			if log := p.Logs(); !strings.Contains(log, tc.says) {
				t.Errorf("the log does not say %q:\n%s", tc.says, log)
			}
		})
	}
}

// What is found once is not looked for again, and costs little the first time.
func TestSOCIRequests(t *testing.T) {
	t.Parallel()
	layout, _, ok := vectors(t)
	if !ok {
		return
	}
	reg := testkit.NewRegistry(t)
	pushSOCI(t, reg, layout, func(*ocispec.Manifest, [][]byte) {})
	proxy := testkit.NewProxy(t, reg.Host())
	p := testkit.NewPeel(t)
	ref := proxy.Ref("app", "gz")
	p.Umount(p.Mount(ref))
	log := slices.DeleteFunc(proxy.Log(), func(r testkit.Request) bool { return r.Path == "/v2/" })
	// Manifest, config, what is attached (asked for in vain, then by tag), the
	// SOCI index, and the zTOCs of three layers.
	const most = 8
	if len(log) > most {
		t.Errorf("%d requests, at most %d: %v", len(log), most, log)
	}
	p.Umount(p.Mount(ref))
	if log := proxy.Log(); len(log) > 0 {
		t.Errorf("the second mount asked for %v", log)
	}
}

func TestRequireProved(t *testing.T) {
	t.Parallel()
	layout, _, ok := vectors(t)
	if !ok {
		return
	}
	reg := testkit.NewRegistry(t)
	pushSOCI(t, reg, layout, func(*ocispec.Manifest, [][]byte) {})
	reg.Push(t, layout, "esgz", "app")
	p := testkit.NewPeel(t)
	esgz := reg.Ref("app", "esgz")
	r := p.Run("mount", "--require", "proved", esgz, p.Dir())
	if r.Code == testkit.OK || !strings.Contains(r.Stderr, "not proved") || !strings.Contains(r.Stderr, "peel verify "+esgz) {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	p.Must("verify", esgz)
	p.Umount(p.Mount(esgz, "--require", "proved"))

	soci := reg.Ref("app", "soci")
	for _, l := range inspect(t, p, soci) {
		if l.Access != "lazy" || l.Trust != "claimed" || !strings.HasPrefix(l.Origin, "SOCI index v1 sha256:") {
			t.Errorf("%+v", l)
		}
	}
	p.Must("verify", soci)
	for _, l := range inspect(t, p, soci, "--require", "proved") {
		if l.Access != "lazy" || l.Trust != "proved" || l.Index == "" {
			t.Errorf("verified: %+v", l)
		}
	}
	for _, l := range inspect(t, p.Beside(), soci, "--require", "proved") {
		if l.Access != "streamed" || l.Trust != "proved" {
			t.Errorf("on another machine: %+v", l)
		}
	}
}

// A repository of indexes that cannot be asked keeps nobody from mounting.
func TestNoIndexRepository(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "app", "v1", testkit.Encode(t, testkit.Gzip, testkit.File("f", []byte("f"))))
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.Inject(testkit.Fault{Path: "/indexes/", Do: testkit.Answer(403, nil)})
	p := testkit.NewPeel(t)
	p.Setenv("PEEL_INDEX", proxy.Host()+"/indexes")
	if l := inspect(t, p, reg.Ref("app", "v1"))[0]; l.Access != "streamed" || !strings.HasPrefix(l.Reason, "the index repository: ") {
		t.Errorf("%+v", l)
	}
	r := p.Run("inspect", "--index", "indexes:v1", reg.Ref("app", "v1"))
	if r.Code != testkit.Usage || !strings.Contains(r.Stderr, "it has a tag") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
}
