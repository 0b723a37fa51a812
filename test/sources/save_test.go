//go:build linux

package sources

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
)

// TestSave writes images of a registry to every place, and has skopeo read them:
// what it finds are the original bytes.
func TestSave(t *testing.T) {
	t.Parallel()
	s := testkit.Debian(t)[0]
	reg := testkit.NewRegistry(t)
	for _, tag := range []string{string(testkit.Gzip), string(testkit.Stargz), string(testkit.Zstd), testkit.Docker} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			reg.Push(t, s.Layout, tag, "save")
			ref, dir := reg.Ref("save", tag), t.TempDir()
			p := testkit.NewPeel(t)
			want := inspect(t, "--override-os=linux", "--override-arch=amd64", "--tls-verify=false", "docker://"+ref)
			for _, to := range []string{"oci:" + filepath.Join(dir, "oci"), "dir:" + filepath.Join(dir, "dir"), "docker-archive:" + filepath.Join(dir, "saved.tar")} {
				p.Must("save", "--platform", "linux/amd64", ref, "-o", to)
				got := inspect(t, to)
				if strings.HasPrefix(to, "docker-archive:") {
					// It has no compressed layers to compare: the image's id is
					// the digest of its config, which names them unpacked.
					got.layers, got.manifest = want.layers, want.manifest
				}
				if got.config != want.config || !slices.Equal(got.layers, want.layers) {
					t.Errorf("%s: %v, want %v", to, got, want)
				}
				if tag != testkit.Docker && got.manifest != want.manifest {
					t.Errorf("%s: manifest %s, want %s", to, got.manifest, want.manifest)
				}
				clock := testkit.Exact
				if testkit.Form(tag).Indexed() {
					clock = testkit.WholeSeconds
				}
				want := s.Expected
				if strings.HasPrefix(to, "docker-archive:") && clock == testkit.WholeSeconds {
					// Nothing there says any more that two files are the format's.
					want = append(slices.Clone(want), formats(t, to)...)
					slices.SortFunc(want, func(a, b testkit.Row) int { return strings.Compare(a.Path, b.Path) })
				}
				shows(t, to, want, clock)
			}
			if r := p.Run("save", ref, "-o", "docker-archive:"+filepath.Join(dir, "no", "such", "folder", "x.tar")); r.Code == testkit.OK || !strings.Contains(r.Stderr, "no/such/folder") {
				t.Errorf("into a folder that is not there: exit code %d\n%s", r.Code, r.Stderr)
			}
		})
	}
}

// formats are the files of eStargz as a tree has them that takes them for the
// image's.
func formats(t *testing.T, ref string) []testkit.Row {
	t.Helper()
	p := testkit.NewPeel(t)
	root := p.Mount(ref)
	rows, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	p.Umount(root)
	return slices.DeleteFunc(rows, func(r testkit.Row) bool {
		return r.Path != "/.no.prefetch.landmark" && r.Path != "/stargz.index.json"
	})
}

// An identity is all digests of an image.
type identity struct {
	manifest, config digest.Digest
	layers           []digest.Digest
}

// inspect asks skopeo.
func inspect(t *testing.T, args ...string) identity {
	t.Helper()
	raw := testkit.RunSkopeo(t, append([]string{"inspect", "--raw"}, args...)...)
	var m struct {
		MediaType string
		Config    struct{ Digest digest.Digest }
		Layers    []struct{ Digest digest.Digest }
	}
	id := identity{manifest: digest.FromString(raw)}
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) == 0 { // an index: skopeo picks the platform for the config
		config := testkit.RunSkopeo(t, append([]string{"inspect", "--config", "--raw"}, args...)...)
		dir := t.TempDir()
		testkit.RunSkopeo(t, append([]string{"copy", "--quiet", "--src-tls-verify=false"}, slices.DeleteFunc(append(slices.Clone(args), "dir:"+dir), func(a string) bool { return a == "--tls-verify=false" || strings.HasPrefix(a, "--override") })...)...)
		id = inspect(t, "dir:"+dir)
		id.config = digest.FromString(config)
		return id
	}
	id.config = m.Config.Digest
	for _, l := range m.Layers {
		id.layers = append(id.layers, l.Digest)
	}
	return id
}

// TestSaveAgain saves a saved image: nothing changes any more.
func TestSaveAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := testkit.NewPeel(t)
	first := save(t, filepath.Join(dir, "first.tar"), "a/b:v1", small(t))
	before := inspect(t, "docker-archive:"+first)
	p.Must("save", "docker-archive:"+first, "-o", "docker-archive:"+filepath.Join(dir, "second.tar"))
	after := inspect(t, "docker-archive:"+filepath.Join(dir, "second.tar"))
	if before.config != after.config || !slices.Equal(before.layers, after.layers) {
		t.Errorf("%v, before %v", after, before)
	}
	p.Must("save", "docker-archive:"+first, "-o", "oci:"+filepath.Join(dir, "oci"))
	p.Must("save", "oci:"+filepath.Join(dir, "oci"), "-o", "oci:"+filepath.Join(dir, "oci-2"))
	if one, two := inspect(t, "oci:"+filepath.Join(dir, "oci")), inspect(t, "oci:"+filepath.Join(dir, "oci-2")); one.manifest != two.manifest {
		t.Errorf("manifest %s, of the copy %s", one.manifest, two.manifest)
	}
}
