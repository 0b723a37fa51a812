package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// modern is a registry with the referrers API, in this process.
func modern(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return s
}

// indexOf is an image index of n made-up manifests.
func indexOf(t testing.TB, n int) (string, []ocispec.Descriptor) {
	t.Helper()
	list := []ocispec.Descriptor{}
	for i := range n {
		list = append(list, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i),
			ArtifactType: "application/test", Annotations: map[string]string{"n": fmt.Sprint(i)},
		})
	}
	return asJSON(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list}), list
}

func asJSON(t testing.TB, doc any) string {
	t.Helper()
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What hosts answer to the API and, asked or not, for the tag.
func TestReferrersAnswers(t *testing.T) {
	t.Parallel()
	index, list := indexOf(t, 3)
	d := digest.FromString("image")
	api, tag := "/v2/a/b/referrers/"+d.String(), "/v2/a/b/manifests/sha256-"+d.Encoded()
	page := func(w http.ResponseWriter, status int, body string) {
		w.WriteHeader(status)
		io.WriteString(w, body) //nolint:errcheck // the client tells
	}
	for _, tt := range []struct {
		name  string
		api   http.HandlerFunc
		tag   string // empty: not there
		want  []ocispec.Descriptor
		err   error
		asked []string // of two calls
	}{
		{name: "API", api: func(w http.ResponseWriter, _ *http.Request) { page(w, 200, index) }, want: list, asked: []string{api, api}},
		{name: "API, no media type", api: func(w http.ResponseWriter, _ *http.Request) { page(w, 200, `{"manifests":[]}`) }, asked: []string{api, api}},
		{name: "API, broken entries", api: func(w http.ResponseWriter, _ *http.Request) {
			page(w, 200, `{"manifests":[{"digest":"sha256:1"},{"digest":"`+d.String()+`","size":-1}]}`)
		}, asked: []string{api, api}},
		{name: "no API", api: http.NotFound, tag: index, want: list, asked: []string{api, tag, tag}},
		{name: "no API, no tag", api: http.NotFound, asked: []string{api, tag, tag}},
		{name: "unknown repository", api: func(w http.ResponseWriter, _ *http.Request) {
			page(w, 404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
		}, asked: []string{api, tag, api, tag}},
		{name: "page for people", api: func(w http.ResponseWriter, _ *http.Request) { page(w, 200, "<html>") }, tag: index, want: list, asked: []string{api, tag, tag}},
		{name: "another document", api: func(w http.ResponseWriter, _ *http.Request) { page(w, 200, imageManifest) }, tag: index, want: list, asked: []string{api, tag, tag}},
		{name: "redirect to nowhere", api: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "ftp://login.example")
			w.WriteHeader(302)
		}, tag: index, want: list, asked: []string{api, tag, api, tag}},
		{name: "not allowed", api: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(405) }, tag: index, want: list, asked: []string{api, tag, api, tag}},
		{name: "tag holds an image", api: http.NotFound, tag: imageManifest, err: ErrAnswer, asked: []string{api, tag, tag}},
		{name: "down", api: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, tag: index, err: ErrUnreachable, asked: []string{api, api, api, api, api, api, api, api}},
		{name: "login", api: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, tag: index, err: ErrLogin, asked: []string{api, api}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == api:
					tt.api(w, r)
				case r.URL.Path == tag && tt.tag != "":
					page(w, 200, tt.tag)
				default:
					http.NotFound(w, r)
				}
			})
			c := newClient(t, Options{})
			ref := named(t, s.addr()+"/a/b:v1")
			for range 2 {
				got, err := c.Referrers(t.Context(), ref, d)
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if err != nil && !strings.Contains(err.Error(), "referrers of "+ref.Name()+"@"+d.String()) {
					t.Errorf("the error names nothing: %v", err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" && len(tt.want)+len(got) > 0 {
					t.Error(diff)
				}
			}
			var asked []string
			for _, r := range s.requests() {
				asked = append(asked, r.URL.Path)
			}
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReferrersPages(t *testing.T) {
	t.Parallel()
	index, list := indexOf(t, 2)
	for _, tt := range []struct {
		name            string
		pages, requests int
	}{
		{"three", 3, 3},
		{"endless", 1 << 30, maxReferrerPages},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
				var n int
				fmt.Sscan(r.URL.Query().Get("page"), &n) //nolint:errcheck // the first has none
				if n < tt.pages-1 {
					w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, n+1))
				}
				io.WriteString(w, index) //nolint:errcheck // the client tells
			})
			got, err := newClient(t, Options{}).Referrers(t.Context(), named(t, s.addr()+"/a/b:v1"), digest.FromString("image"))
			if err != nil || len(got) != tt.requests*len(list) || len(s.requests()) != tt.requests {
				t.Errorf("%d referrers of %d requests, %v", len(got), len(s.requests()), err)
			}
		})
	}
}

// A mirror that knows of none does not hide those of the origin, and one that
// was not made for it is not asked.
func TestReferrersOfMirrors(t *testing.T) {
	t.Parallel()
	index, list := indexOf(t, 1)
	for _, tt := range []struct {
		name, capabilities string
		asked              bool
	}{
		{"mirror without the API", `["pull", "resolve", "referrers"]`, true},
		{"mirror not for referrers", `["pull", "resolve"]`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mirror := newHost(t, http.NotFound)
			origin := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, index) //nolint:errcheck // the client tells
			})
			dir := hostsDir(t, "reg.example", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = %s\n", origin.URL, mirror.URL, tt.capabilities))
			c := newClient(t, Options{HostsDir: dir})
			got, err := c.Referrers(t.Context(), named(t, "reg.example/a/b:v1"), digest.FromString("image"))
			if err != nil || cmp.Diff(list, got) != "" || (len(mirror.requests()) > 0) != tt.asked {
				t.Errorf("%v, %v, mirror asked %d times", got, err, len(mirror.requests()))
			}
		})
	}
}

func TestNextPage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		link []string
		want string
	}{
		{"none", nil, ""},
		{"quoted", []string{`</v2/x?n=1&last=a,b>; rel="next"`}, "/v2/x?n=1&last=a,b"},
		{"bare", []string{`<https://r.example/x>;rel=next`}, "https://r.example/x"},
		{"second link", []string{`<a>; rel="prev", <b>; title="x"; rel="next"`}, "b"},
		{"second header", []string{`<a>; rel=prev`, `<b>; REL="Next"`}, "b"},
		{"several relations", []string{`<a>; rel="last next"`}, "a"},
		{"other relation", []string{`<a>; rel="nextish"`}, ""},
		{"no relation", []string{`<a>`}, ""},
		{"broken", []string{`<a; rel="next"`, `>;<`, `<<>>`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := nextPage(http.Header{"Link": tt.link}); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/x?n=1&last=a,b>; rel="next"`)
	f.Add(`<a>; rel="prev", <b>; title="x"; rel="next"`)
	f.Add(`><>;<rel=next`)
	f.Fuzz(func(t *testing.T, link string) {
		if got := nextPage(http.Header{"Link": {link}}); !strings.Contains(link, "<"+got+">") && got != "" {
			t.Errorf("%q is not in %q", got, link)
		}
	})
}
