//go:build linux

package registries

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
)

// TestSchema1Stored: docker-registry has an image in schema 1 and nothing else.
func TestSchema1Stored(t *testing.T) {
	t.Parallel()
	dir, want, found := testkit.Vectors(t)
	if !found {
		return
	}
	reg := testkit.NewOldRegistry(t)
	reg.PushSchema1(t, filepath.Join(dir, "tricky-schema1"), "tri/cky", "v1")
	ref := reg.Ref("tri/cky", "v1")

	t.Run("mount", func(t *testing.T) {
		t.Parallel()
		p := testkit.NewPeel(t)
		root := p.Mount(ref)
		got, err := testkit.List(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range testkit.Differences(want, got, testkit.Exact) {
			t.Error(d)
		}
		if !strings.Contains(p.Logs(), "schema 1") {
			t.Error("no warning that signatures of schema 1 prove nothing")
		}
		p.Umount(root)
	})
	t.Run("documents", func(t *testing.T) {
		t.Parallel()
		p := testkit.NewPeel(t)
		raw := p.Must("manifest", ref).Stdout
		if !strings.Contains(raw, "fsLayers") {
			t.Errorf("manifest:\n%s", raw)
		}
		if out := p.Must("fetch", ref).Stdout; !strings.Contains(out, "v1Compatibility") {
			t.Errorf("fetch:\n%s", out)
		}
		if out := p.Must("config", ref).Stdout; !strings.Contains(out, "/app/run.sh") {
			t.Errorf("config:\n%s", out)
		}
		p.Must("layers", ref)
		p.Must("inspect", ref)
		p.Must("resolve", ref)
		p.Must("tags", reg.Host()+"/tri/cky")
		if r := p.Run("resolve", "--schema", "2", ref); r.Code == testkit.OK {
			t.Errorf("schema 2, which there is not:\n%s", r.Stdout)
		}
	})
	t.Run("pull and save", func(t *testing.T) {
		t.Parallel()
		p := testkit.NewPeel(t)
		p.Must("pull", ref)
		out := t.TempDir()
		for _, to := range []string{"oci:" + filepath.Join(out, "oci"), "docker-archive:" + filepath.Join(out, "a.tar"), "dir:" + filepath.Join(out, "dir")} {
			p.Must("save", ref, "-o", to)
			root := p.Mount(to)
			got, err := testkit.List(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range testkit.Differences(want, got, testkit.Exact) {
				t.Errorf("%s: %s", to, d)
			}
			p.Umount(root)
		}
	})
	t.Run("verify", func(t *testing.T) {
		t.Parallel()
		testkit.NewPeel(t).Must("verify", ref)
	})
}

// TestBothSchemas: docker-registry makes schema 1 of an image of schema 2 for
// those who ask for nothing else. Both show the same.
func TestBothSchemas(t *testing.T) {
	t.Parallel()
	dir, _ := layout(t)
	reg := testkit.NewOldRegistry(t)
	d := reg.Push(t, dir, "docker", "bo/th")
	ref := reg.Ref("bo/th", "docker")
	p := testkit.NewPeel(t)
	for _, tc := range []struct{ name, schema, has string }{
		{"without a wish", "", `"layers"`},
		{"schema 2", "2", `"layers"`},
		{"schema 1", "1", "fsLayers"},
		{"schema 2 again", "2", `"layers"`},
	} {
		var flags []string
		if tc.schema != "" {
			flags = []string{"--schema", tc.schema}
		}
		if out := p.Must(append([]string{"manifest", ref}, flags...)...).Stdout; !strings.Contains(out, tc.has) {
			t.Errorf("%s: no %s in\n%s", tc.name, tc.has, out)
		}
		out := p.Must(append([]string{"resolve", ref}, flags...)...).Stdout
		if same := strings.Contains(out, d.Digest.String()); same != (tc.schema != "1") {
			t.Errorf("%s: resolved to\n%s", tc.name, out)
		}
		root := p.Mount(ref, flags...)
		readsAll(t, root)
		p.Umount(root)
	}
}

// TestSchema1Unusual: unsigned manifests, of a media type that says nothing, and
// manifests that are not what they say.
func TestSchema1Unusual(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	layer := testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content")))
	empty := testkit.Encode(t, testkit.Gzip)
	reg.Publish(t, "a/b", "v1", layer, empty)
	type history struct {
		V1Compatibility string `json:"v1Compatibility"`
	}
	type blob struct {
		BlobSum digest.Digest `json:"blobSum"`
	}
	id := func(c string) string { return strings.Repeat(c, 64) }
	manifest := func(h ...history) []byte {
		m := map[string]any{"schemaVersion": 1, "name": "a/b", "tag": "v1", "architecture": "amd64", "history": h}
		blobs := []blob{{empty.Desc.Digest}, {layer.Desc.Digest}}
		m["fsLayers"] = blobs[:min(len(h), 2)]
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	base := history{`{"id":"` + id("b") + `","created":"2016-01-01T00:00:00Z","os":"linux","architecture":"amd64"}`}
	good := manifest(history{`{"id":"` + id("a") + `","parent":"` + id("b") + `","throwaway":true,"os":"linux","architecture":"amd64","config":{}}`}, base)
	orphan := manifest(history{`{"id":"` + id("a") + `","parent":"` + id("c") + `"}`}, base)
	for _, tc := range []struct {
		name, kind, digest string
		raw                []byte
		code               int
		word               string
	}{
		{"unsigned", testkit.Schema1, "", good, testkit.OK, ""},
		{"application/json", "application/json", "", good, testkit.OK, ""},
		{"called signed, but is not", testkit.Schema1Signed, "", good, testkit.OK, ""},
		{"another digest", testkit.Schema1, digest.FromString("other").String(), good, testkit.Unverified, "sha256:"},
		{"a parent that is not there", testkit.Schema1, "", orphan, testkit.Failed, "parent"},
		{"history and layers do not match", testkit.Schema1, "", bytes.Replace(good, []byte(`"history":[`), []byte(`"history":[{"v1Compatibility":"{}"},`), 1), testkit.Failed, "history"},
		{"no layers", testkit.Schema1, "", []byte(`{"schemaVersion":1,"name":"a/b","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}`), testkit.Failed, "fsLayers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proxy := testkit.NewProxy(t, reg.Host())
			header := http.Header{"Content-Type": {tc.kind}}
			if tc.digest != "" {
				header.Set("Docker-Content-Digest", tc.digest)
			}
			proxy.Inject(testkit.Fault{Path: "/manifests/", Do: testkit.Serve(tc.raw, header)})
			p := testkit.NewPeel(t)
			dir := p.Dir()
			r := p.Run("mount", proxy.Ref("a/b", "v1"), dir)
			if r.Code != tc.code || !strings.Contains(r.Stderr, tc.word) {
				t.Fatalf("exit code %d, want %d with %q\n%s", r.Code, tc.code, tc.word, r.Stderr)
			}
			if tc.code != testkit.OK {
				return
			}
			if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "content" {
				t.Errorf("%q, %v", got, err)
			}
			p.Umount(dir)
			for _, w := range proxy.Wire() {
				if strings.Contains(w.URI, empty.Desc.Digest.String()) {
					t.Errorf("the layer to be thrown away was asked for")
				}
			}
		})
	}
}
