//go:build linux

package explain

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// explained is what peel explain --json tells of an image.
type explained struct {
	Reference string `json:"reference"`
	Lazy      int    `json:"lazy"`
	ReadWhole int64  `json:"read_whole"`
	Layers    []struct {
		Digest     string `json:"digest"`
		Format     string `json:"format"`
		Access     string `json:"access"`
		Why        string `json:"why"`
		Advice     string `json:"advice"`
		Compressed int64  `json:"compressed"`
	} `json:"layers"`
	Profiles []struct {
		Entrypoint string `json:"entrypoint"`
		Runs       int    `json:"runs"`
		OwnRuns    int    `json:"own_runs"`
	} `json:"profiles"`
	Ahead struct {
		From       string `json:"from"`
		Spans      int    `json:"spans"`
		Compressed int64  `json:"compressed"`
	} `json:"ahead"`
}

// explain asks about an image, in both ways.
func explain(t *testing.T, p *testkit.Peel, args ...string) (e explained, text string) {
	t.Helper()
	out := p.Must(append([]string{"explain", "--json"}, args...)...).Stdout
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return e, p.Must(append([]string{"explain"}, args...)...).Stdout
}

// is complains unless all layers are of an access, for a reason and with advice
// of which these are parts; no advice is "".
func (e *explained) is(t *testing.T, access, why, advice string) {
	t.Helper()
	if len(e.Layers) == 0 {
		t.Error("no layers")
	}
	whole := int64(0)
	for _, l := range e.Layers {
		if l.Access != access || !strings.Contains(l.Why, why) || !strings.Contains(l.Advice, advice) || (advice == "") != (l.Advice == "") {
			t.Errorf("%s: %s, %q, %q", l.Digest, l.Access, l.Why, l.Advice)
		}
		if l.Access != "lazy" {
			whole += l.Compressed
		}
	}
	if e.ReadWhole != whole || access == "lazy" && e.Lazy != len(e.Layers) || access != "lazy" && e.Lazy != 0 {
		t.Errorf("%d layers lazy, %d bytes read whole", e.Lazy, e.ReadWhole)
	}
}

// TestForms: every form that the images of the tests have.
func TestForms(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	for _, f := range testkit.Forms() {
		reg.Publish(t, "forms", string(f), testkit.Encode(t, f, entries()...))
	}
	p := testkit.NewPeel(t)
	for form, want := range map[testkit.Form][3]string{
		testkit.Gzip:             {"streamed", "plain gzip, without an index", "peel index push "},
		testkit.GzipMembers:      {"streamed", "plain gzip, without an index", "peel index push "},
		testkit.PlainTar:         {"streamed", "plain tar, without an index", "peel index push "},
		testkit.Zstd:             {"streamed", "plain zstd, without an index", "peel "},
		testkit.Stargz:           {"lazy", "eStargz, by the table of contents", ""},
		testkit.StargzMin:        {"lazy", "eStargz, by the table of contents", ""},
		testkit.StargzLegacy:     {"lazy", "eStargz, by the table of contents", ""},
		testkit.ZstdChunked:      {"lazy", "zstd:chunked, by the table of contents", ""},
		testkit.ZstdChunkedEarly: {"lazy", "zstd:chunked, by the table of contents", ""},
	} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			e, text := explain(t, p, reg.Ref("forms", string(form)))
			e.is(t, want[0], want[1], want[2])
			if !strings.Contains(text, want[1]) || !strings.Contains(text, want[2]) || !strings.Contains(text, "nothing is known of what will be read") {
				t.Errorf("for people:\n%s", text)
			}
		})
	}
}

// text is n bytes of words that come again and again, so that each block of it,
// compressed, refers to the ones before.
func text(seed uint64, n int) []byte {
	const words, length = 4096, 16
	dictionary, picks := testkit.Noise(seed, words*length), testkit.Noise(seed+1, 2*n/length)
	out := make([]byte, 0, n)
	for i := 0; i+1 < len(picks); i += 2 {
		at := (int(picks[i])<<8 | int(picks[i+1])) % words * length
		out = append(out, dictionary[at:at+length]...)
	}
	return out
}

// TestLongFrame: a layer in one frame of zstd, which nobody can enter.
func TestLongFrame(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "frame", "v1", testkit.Encode(t, testkit.Zstd, testkit.File("long", text(1, 40<<20))))
	e, _ := explain(t, testkit.NewPeel(t), reg.Ref("frame", "v1"))
	e.is(t, "streamed", "nor would one help: the zstd stream cannot be entered", "peel convert --format estargz ")
	small := reg.Ref("frame", "small")
	reg.Publish(t, "frame", "small", testkit.Encode(t, testkit.Gzip, testkit.File("a", []byte("b"))))
	e, _ = explain(t, testkit.NewPeel(t), small)
	e.is(t, "streamed", "so small that an index would cost as much", "")
}

// TestAdviceHelps: who does what was advised gets what was promised.
func TestAdviceHelps(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "help", "v1", testkit.Encode(t, testkit.Gzip, entries()...))
	ref := reg.Ref("help", "v1")
	p := testkit.NewPeel(t)
	e, _ := explain(t, p, ref)
	push, convert, ok := strings.Cut(e.Layers[0].Advice, ", or with --to a repository of yours that peel mount --index names; or ")
	if !ok {
		t.Fatal(e.Layers[0].Advice)
	}
	lazy := reg.Ref("help", "lazy")
	p.Must(strings.Fields(strings.Replace(convert, " IMAGE", " "+lazy, 1))[1:]...)
	e, _ = explain(t, p.Beside(), lazy)
	e.is(t, "lazy", "eStargz, by the table", "")
	p.Must(strings.Fields(push)[1:]...)
	e, _ = explain(t, p.Beside(), ref)
	e.is(t, "lazy", "gzip, by an index: peel index of ", "")
}

// TestNoRanges: a registry that sends all whatever was asked for.
func TestNoRanges(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "whole", "v1", testkit.Encode(t, testkit.Stargz, entries()...))
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.Inject(testkit.Fault{Path: "/blobs/", Do: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	e, _ := explain(t, testkit.NewPeel(t), proxy.Ref("whole", "v1"))
	e.is(t, "streamed", "the registry refuses byte ranges", "hosts.toml")
}

// TestOddImages: what is no layer of an image of today.
func TestOddImages(t *testing.T) {
	t.Parallel()
	p := testkit.NewPeel(t)
	t.Run("artifact", func(t *testing.T) {
		t.Parallel()
		reg := testkit.NewRegistry(t)
		file, config := []byte("a chart, say"), []byte("{}")
		blob, empty := testkit.PutBlob(t, reg.Host(), "art", file), testkit.PutBlob(t, reg.Host(), "art", config)
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.chart",
			"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},
			"layers":[{"mediaType":"application/x-chart","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.title":"chart"}}]}`,
			ocispec.MediaTypeImageManifest, empty, len(config), blob, len(file))
		testkit.PutManifest(t, reg.Host(), "art", "v1", ocispec.MediaTypeImageManifest, raw)
		e, _ := explain(t, p, reg.Ref("art", "v1"))
		e.is(t, "streamed", "file of an artifact", "")
	})
	t.Run("schema 1", func(t *testing.T) {
		t.Parallel()
		dir, _, found := testkit.Vectors(t)
		if !found {
			return
		}
		reg := testkit.NewOldRegistry(t)
		reg.PushSchema1(t, filepath.Join(dir, "tricky-schema1"), "tri/cky", "v1")
		e, _ := explain(t, p, reg.Ref("tri/cky", "v1"))
		e.is(t, "streamed", "Docker schema 1 know neither", "peel save ")
	})
	t.Run("on this machine", func(t *testing.T) {
		t.Parallel()
		l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Image(testkit.Encode(t, testkit.Gzip, entries()...))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Tag("v1", d); err != nil {
			t.Fatal(err)
		}
		e, text := explain(t, p, "oci:"+l.Dir+":v1")
		e.is(t, "streamed", "it lies on this machine", "")
		if strings.Contains(text, "Ahead:") || strings.Contains(text, "peel profile") {
			t.Errorf("for people:\n%s", text)
		}
	})
}

// TestVectors: images that other tools made.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir, _, found := testkit.Vectors(t)
	if !found {
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, "tricky", "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	p, reg := testkit.NewPeel(t), testkit.NewRegistry(t)
	for _, m := range index.Manifests {
		tag := m.Annotations[ocispec.AnnotationRefName]
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			reg.Push(t, filepath.Join(dir, "tricky"), tag, "tricky")
			e, _ := explain(t, p, reg.Ref("tricky", tag))
			for _, l := range e.Layers {
				// Some of these have an index, which then is of others' layers too.
				lazy := l.Format == "eStargz" || l.Format == "zstd:chunked" || strings.Contains(l.Why, "by an index: ")
				if lazy != (l.Access == "lazy") || l.Why == "" || lazy && l.Advice != "" {
					t.Errorf("%+v", l)
				}
				t.Logf("%s: %s: %s; %s", l.Format, l.Access, l.Why, l.Advice)
			}
		})
	}
}

// TestAhead: what was read of an image is what its next mount fetches ahead.
func TestAhead(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "ahead", "v1", testkit.Encode(t, testkit.Stargz, entries()...))
	ref, p := reg.Ref("ahead", "v1"), testkit.NewPeel(t)
	root := p.Mount(ref, "--entrypoint", "all")
	readAll(t, root)
	p.Umount(root)
	e, text := explain(t, p, "--entrypoint", "all", ref)
	if e.Ahead.Spans == 0 || e.Ahead.Compressed < files*fileSize*9/10 || !strings.Contains(e.Ahead.From, "earlier runs") {
		t.Errorf("ahead: %+v", e.Ahead)
	}
	if len(e.Profiles) != 1 || e.Profiles[0].Entrypoint != "all" || e.Profiles[0].Runs != 1 || e.Profiles[0].OwnRuns != 1 {
		t.Errorf("profiles: %+v", e.Profiles)
	}
	if !strings.Contains(text, `Profile:   "all", of 1 run, 1 of this machine`) {
		t.Errorf("for people:\n%s", text)
	}
	if e, _ := explain(t, p, ref); e.Ahead.Spans != 0 {
		t.Errorf("another workload: %+v", e.Ahead)
	}
}
