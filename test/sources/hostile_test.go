//go:build linux

package sources

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestHostileArchives gives peel archives that nobody should have made. Each is
// refused, and the entry that is wrong is named.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	layer := small(t)
	layerName := layer.DiffID.Encoded() + ".tar"
	good := func() []testkit.Entry { return entries(t, "a/b:v1", layer) }
	replaced := func(name string, by testkit.Entry) []testkit.Entry {
		out := good()
		i := slices.IndexFunc(out, func(e testkit.Entry) bool { return e.Name == name })
		out[i] = by
		return out
	}
	named := func(c, l string) []testkit.Entry {
		image := listed{Config: c, RepoTags: []string{"a/b:v1"}, Layers: []string{l}}
		return replaced("manifest.json", testkit.File("manifest.json", document(t, []listed{image})))
	}
	configName := good()[1].Name
	other := testkit.Encode(t, testkit.PlainTar, testkit.File("other", []byte("content")))
	deep := bytes.Repeat([]byte("["), 1<<20)
	for _, tc := range []struct {
		name    string
		entries []testkit.Entry
		word    string // which the message must have
	}{
		{"a member above the archive", append(good(), testkit.File("../../etc/cron.d/x", []byte("x"))), "../../etc/cron.d/x"},
		{"an absolute member", append(good(), testkit.File("/etc/cron.d/x", []byte("x"))), "/etc/cron.d/x"},
		{"a layer above the archive", named(configName, "../../../../etc/passwd"), "../../../../etc/passwd"},
		{"an absolute layer", named(configName, "/etc/passwd"), "/etc/passwd"},
		{"an absolute config", named("/etc/passwd", layerName), "/etc/passwd"},
		{"a layer that is a link to a file of this machine", replaced(layerName, testkit.Symlink(layerName, "/etc/passwd")), "/etc/passwd"},
		{"a layer that is a link upwards", replaced(layerName, testkit.Symlink(layerName, "../../../etc/passwd")), layerName[:12]},
		{"a config that is a hard link upwards", replaced(configName, testkit.Hardlink(configName, "../etc/passwd")), "../etc/passwd"},
		{"links in a circle", replaced(layerName, testkit.Symlink(layerName, layerName)), layerName[:12]},
		{"a layer that is not there", named(configName, "none.tar"), "none.tar"},
		{"a config that is not there", named("none.json", layerName), "none.json"},
		{"a config that is not JSON", replaced(configName, testkit.File(configName, []byte("none"))), configName[:12]},
		{"a config without end", replaced(configName, testkit.File(configName, bytes.Repeat([]byte(" "), 64<<20))), configName[:12]},
		{"a manifest.json without end", replaced("manifest.json", testkit.File("manifest.json", bytes.Repeat([]byte(" "), 64<<20))), "manifest.json"},
		{"a manifest.json of brackets", replaced("manifest.json", testkit.File("manifest.json", deep)), "manifest.json"},
		{"two of manifest.json", append(good(), testkit.File("manifest.json", []byte("[]"))), "manifest.json"},
		{"another layer than the config says", replaced(layerName, testkit.File(layerName, other.Blob)), layerName[:12]},
		{"more layers than the config has", func() []testkit.Entry {
			image := listed{Config: configName, Layers: []string{layerName, layerName}}
			return replaced("manifest.json", testkit.File("manifest.json", document(t, []listed{image})))
		}(), configName[:12]},
		{"a member of a device", replaced(layerName, testkit.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: layerName, Devmajor: 1, Devminor: 5}}), layerName[:12]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			refused(t, "docker-archive:"+archive(t, filepath.Join(t.TempDir(), "a.tar"), tc.entries...), tc.word)
		})
	}
}

// TestBrokenArchives: files that are cut, or nothing at all.
func TestBrokenArchives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole, err := testkit.Tar(entries(t, "a/b:v1", small(t))...)
	if err != nil {
		t.Fatal(err)
	}
	bomb := testkit.Encode(t, testkit.Gzip, testkit.File("x", make([]byte, 1<<20)))
	for _, tc := range []struct {
		name, word string
		data       []byte
	}{
		{"cut within a layer", "tar", whole[:100_000]},
		{"empty", "empty", nil},
		{"text", "text", []byte("hello, this is not an archive\n")},
		{"noise", "noise", testkit.Noise(1, 100_000)},
		{"gzip without end", "gzip", bomb.Blob[:len(bomb.Blob)/2]},
		{"no image", "none", mustTar(t, testkit.File("README", []byte("none")))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			name := write(t, filepath.Join(dir, strings.ReplaceAll(tc.name, " ", "-"), tc.word), tc.data)
			refused(t, "docker-archive:"+name, tc.word)
			refused(t, "oci-archive:"+name, tc.word)
		})
	}
}

// TestHostileFolders: the same for images in folders.
func TestHostileFolders(t *testing.T) {
	t.Parallel()
	layer := small(t)
	for _, tc := range []struct {
		name, transport, word string
		files                 map[string][]byte
	}{
		{"docker-dir, a layer above", "docker-dir", "../../etc/passwd", map[string][]byte{
			"manifest.json": document(t, []listed{{Config: "c.json", Layers: []string{"../../etc/passwd"}}}), "c.json": config(t, layer.DiffID),
		}},
		{"docker-dir, parents in a circle", "docker-dir", strings.Repeat("a", 12), map[string][]byte{
			"repositories":                       []byte(fmt.Sprintf(`{"a/b":{"v1":"%s"}}`, strings.Repeat("a", 64))),
			strings.Repeat("a", 64) + "/VERSION": []byte("1.0"),
			strings.Repeat("a", 64) + "/json":    []byte(fmt.Sprintf(`{"id":"%s","parent":"%s"}`, strings.Repeat("a", 64), strings.Repeat("b", 64))), strings.Repeat("a", 64) + "/layer.tar": layer.Blob,
			strings.Repeat("b", 64) + "/VERSION": []byte("1.0"),
			strings.Repeat("b", 64) + "/json":    []byte(fmt.Sprintf(`{"id":"%s","parent":"%s"}`, strings.Repeat("b", 64), strings.Repeat("a", 64))), strings.Repeat("b", 64) + "/layer.tar": layer.Blob,
		}},
		{"docker-dir, an id that leads away", "docker-dir", "../../etc", map[string][]byte{"repositories": []byte(`{"a/b":{"v1":"../../etc"}}`)}},
		{"oci, no index", "oci", "index.json", map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}},
		{"oci, a digest that leads away", "oci", "../../etc/passwd", map[string][]byte{
			"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
			"index.json": []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../etc/passwd","size":10}]}`),
		}},
		{"dir, a manifest that is none", "dir", "malformed document", map[string][]byte{"manifest.json": []byte(`"none"`)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, data := range tc.files {
				write(t, filepath.Join(dir, name), data)
			}
			refused(t, tc.transport+":"+dir, tc.word)
		})
	}
	t.Run("a blob that is not what its name says", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		l, err := testkit.NewLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Image(layer)
		if err == nil {
			err = l.Tag("v1", d)
		}
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(layer.Blob)
		changed[len(changed)-1500] ^= 1
		write(t, filepath.Join(dir, "blobs", "sha256", layer.Desc.Digest.Encoded()), changed)
		p := testkit.NewPeel(t)
		r := p.Run("cat", "oci:"+dir+":v1:/noise")
		if r.Code != testkit.Unverified || !strings.Contains(r.Stderr, layer.Desc.Digest.Encoded()[:12]) {
			t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
		}
	})
}

// refused checks that a mount of ref fails with a message of peel that has the
// word, and leaves nothing.
func refused(t *testing.T, ref, word string) {
	t.Helper()
	p := testkit.NewPeel(t)
	r := p.Run("mount", ref, p.Dir())
	if r.Code == testkit.OK || r.Code == testkit.Network || r.Code == testkit.Usage {
		t.Errorf("%s: exit code %d\n%s", ref, r.Code, r.Stderr)
	}
	if !strings.HasPrefix(r.Stderr, "peel: ") || !strings.Contains(r.Stderr, word) {
		t.Errorf("%s: does not name %q:\n%s", ref, word, r.Stderr)
	}
	p.CheckLeftovers()
}

func mustTar(t *testing.T, entries ...testkit.Entry) []byte {
	t.Helper()
	data, err := testkit.Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
