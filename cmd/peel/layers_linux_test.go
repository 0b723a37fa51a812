package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
)

// emptyGzip is the layer that Docker gave steps of a build without files.
func emptyGzip() []byte {
	return []byte{
		31, 139, 8, 0, 0, 9, 110, 136, 0, 255, 98, 24, 5, 163, 96, 20,
		140, 88, 0, 8, 0, 0, 255, 255, 46, 175, 181, 239, 0, 4, 0, 0,
	}
}

// oldImage is an image of Docker schema 1, as skopeo lays it out: two layers,
// and between them a step without files.
func oldImage(t *testing.T) (dir string, layers []testkit.Layer) {
	t.Helper()
	type member = map[string]any
	dir = filepath.Join(t.TempDir(), "old")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	layers = []testkit.Layer{
		testkit.Encode(t, testkit.Gzip, testkit.File("a", []byte("a")), testkit.File("noise", testkit.Noise(1, 4<<20))),
		testkit.Encode(t, testkit.Gzip, testkit.File("b", []byte("b"))),
	}
	files := map[string][]byte{"version": []byte("Directory Transport Version: 1.1\n")}
	var fsLayers, history []member
	parent := ""
	for i, blob := range [][]byte{layers[0].Blob, emptyGzip(), layers[1].Blob} {
		id := strings.Repeat("abc"[i:i+1], 64)
		v := member{
			"id": id, "os": "linux", "architecture": "amd64", "throwaway": i == 1, "docker_version": "1.12.0",
			"created": "2016-01-02T03:04:05Z", "container_config": member{"Cmd": []string{"step", "abc"[i : i+1]}},
		}
		if parent != "" {
			v["parent"] = parent
		}
		parent = id
		compat, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(blob)
		files[d.Encoded()] = blob
		fsLayers = append([]member{{"blobSum": d}}, fsLayers...)
		history = append([]member{{"v1Compatibility": string(compat)}}, history...)
	}
	raw, err := json.Marshal(member{
		"schemaVersion": 1, "name": "old", "tag": "1", "architecture": "amd64", "fsLayers": fsLayers, "history": history,
	})
	if err != nil {
		t.Fatal(err)
	}
	files["manifest.json"] = raw
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, layers
}

func TestLayers(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	old, blobs := oldImage(t)
	ref := "oci:" + s.Dir + ":one"
	list := func(arg ...string) (l layerList) {
		t.Helper()
		got := peel(t, append([]string{"layers", "--json"}, arg...)...)
		if err := json.Unmarshal([]byte(got.out), &l); err != nil || got.code != 0 || got.err != "" {
			t.Fatalf("%+v, %v", got, err)
		}
		return l
	}
	l := list(ref)
	if l.Reference != ref || l.Digest != s.one.Digest || len(l.Layers) != 2 || l.Layers[0].Number != 1 ||
		l.Layers[0].Digest != s.below.Desc.Digest || l.Layers[0].DiffID != s.below.DiffID || l.Layers[0].Size != s.below.Desc.Size {
		t.Errorf("%+v", l)
	}
	l = list("dir:" + old)
	var steps []string
	for _, h := range l.History {
		steps = append(steps, h.CreatedBy)
	}
	if d := cmp.Diff([]string{"step a", "step b", "step c"}, steps); d != "" {
		t.Error(d)
	}
	if !l.Schema1 || len(l.Layers) != 2 || l.Layers[1].V1ID != strings.Repeat("c", 64) || l.Layers[1].CreatedBy != "step c" ||
		l.Layers[1].DiffID != "" || l.History[1].Layer != 0 || !l.History[1].Empty || l.History[2].Layer != 2 ||
		l.Size != blobs[0].Desc.Size+blobs[1].Desc.Size {
		t.Errorf("%+v", l)
	}
	l = list("oci:" + s.Dir + "@" + artifactOf(t, s).String())
	if !l.Artifact || len(l.History) != 0 || l.Layers[0].File != digest.FromString("bottle").Encoded() {
		t.Errorf("%+v", l)
	}
}

func TestLayersText(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	old, _ := oldImage(t)
	for _, tc := range []struct {
		name, ref string
		head      string
		rows      [][]string // parts of the lines below the head
	}{
		{"image", "oci:" + s.Dir + ":one", "#  DIGEST        DIFF ID", [][]string{{"1  "}, {"2  ", "tar+zstd"}}},
		{"schema 1", "dir:" + old, "#  DIGEST        V1 ID", [][]string{
			{"1  ", "aaaaaaaaaaaa ", "step a"}, {"-  ", "step b"}, {"2  ", "cccccccccccc ", "step c"},
		}},
		{"artifact", "oci:" + s.Dir + "@" + artifactOf(t, s).String(), "#  DIGEST        DIFF ID  SIZE  MEDIA TYPE  FILE", [][]string{
			{"1  ", " -  ", "6 B", "text/plain", digest.FromString("bottle").Encoded()},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := peel(t, "layers", tc.ref)
			_, table, ok := strings.Cut(got.out, "\n\n")
			lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
			if got.code != 0 || got.err != "" || !ok || !strings.HasPrefix(lines[0], tc.head) || len(lines) != 1+len(tc.rows) {
				t.Fatalf("%+v", got)
			}
			for i, parts := range tc.rows {
				for _, part := range parts {
					if !strings.Contains(lines[i+1], part) {
						t.Errorf("line %q does not hold %q", lines[i+1], part)
					}
				}
			}
		})
	}
	if got := peel(t, "layers", "oci:"+s.Dir+":all", "--platform", "linux/s390x"); got.code != exitNotFound {
		t.Errorf("%+v", got)
	}
}

// A hostile history is told on one line, without what a terminal obeys.
func TestStory(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/bin/sh -c \t a \n\n b": "/bin/sh -c a b",
		"a\x1b[2Jb":              "a\ufffd[2Jb",
		strings.Repeat("ä", 200): strings.Repeat("ä", maxStory-1) + "…",
		"":                       "comment",
	} {
		h := historyEntry{CreatedBy: in, Comment: "comment"}
		if got := h.story(); got != want {
			t.Errorf("%q is told as %q", in, got)
		}
	}
}

// TestSaveSchema1: a folder takes the manifest as it is, with the blobs of
// empty layers; elsewhere it becomes what skopeo makes of it.
func TestSaveSchema1(t *testing.T) {
	t.Parallel()
	old, _ := oldImage(t)
	dir := t.TempDir()
	for _, to := range []string{"dir:" + dir + "/dir", "oci:" + dir + "/layout:t", "oci-archive:" + dir + "/layout.tar:t", "docker-archive:" + dir + "/docker.tar"} {
		if got := peel(t, "save", "dir:"+old, "-o", to); got.code != 0 || got.err != "" {
			t.Fatalf("%+v", got)
		}
	}
	for _, name := range leftIn(t, old) {
		want, err := os.ReadFile(filepath.Join(old, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "dir", name)); err != nil || string(got) != string(want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	config := func(ref string) digest.Digest {
		t.Helper()
		to := filepath.Join(t.TempDir(), "copy")
		testkit.RunSkopeo(t, "copy", "--quiet", "--format", "v2s2", ref, "dir:"+to)
		raw, err := os.ReadFile(filepath.Join(to, "manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Config struct{ Digest digest.Digest }
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		return m.Config.Digest
	}
	want := config("dir:" + old)
	for _, ref := range []string{"oci:" + dir + "/layout:t", "oci-archive:" + dir + "/layout.tar:t", "docker-archive:" + dir + "/docker.tar"} {
		if got := config(ref); got != want {
			t.Errorf("%s has the ID %s, skopeo makes %s of the original", ref, got, want)
		}
	}
}

// TestSchema1Registry: a registry that stores schema 1 signs it, and names it
// by the digest of what it signed.
func TestSchema1Registry(t *testing.T) {
	t.Parallel()
	old, layers := oldImage(t)
	reg := testkit.NewOldRegistry(t)
	reg.PushSchema1(t, old, "old", "1")
	dir := filepath.Join(t.TempDir(), "dir")
	got := peel(t, "save", reg.Ref("old", "1"), "-o", "dir:"+dir)
	_, at, ok := strings.Cut(strings.TrimSpace(got.out), "@")
	if got.code != 0 || !ok {
		t.Fatalf("%+v", got)
	}
	if is := strings.TrimSpace(testkit.RunSkopeo(t, "manifest-digest", filepath.Join(dir, "manifest.json"))); is != at {
		t.Errorf("skopeo says %s, peel %s", is, at)
	}
	testkit.RunSkopeo(t, "copy", "--quiet", "dir:"+dir, "dir:"+dir+"-copy") // all blobs are there
	blob := layers[0].Desc
	reg.Inject(testkit.Fault{Path: blob.Digest.String(), Times: 2, Do: testkit.Corrupt(10)})
	got = peel(t, "save", reg.Ref("old", "1"), "-o", "oci:"+dir+"-wrong")
	if got.code != 0 || !strings.Contains(got.err, "once more") {
		t.Errorf("a layer that was sent wrong: %+v", got)
	}
	pinned := reg.Host() + "/old@" + at
	got = peel(t, "layers", "--json", pinned)
	var l layerList
	if err := json.Unmarshal([]byte(got.out), &l); err != nil || l.Digest.String() != at || len(l.Layers) != 2 ||
		l.Layers[0].Digest != layers[0].Desc.Digest || l.Layers[1].Size != layers[1].Desc.Size {
		t.Errorf("%+v, %v", got, err)
	}
	if got := peel(t, "cat", pinned+":/a", pinned+":/b"); got.out != "ab" {
		t.Errorf("%+v", got)
	}
	other := digest.FromString("").String()
	if got := peel(t, "layers", reg.Host()+"/old@"+other); got.code != exitNotFound {
		t.Errorf("another digest: %+v", got)
	}
}
