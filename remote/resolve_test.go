package remote

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// serving is a repository a/b with one manifest and one blob.
func serving(t *testing.T, manifest, blob string) *host {
	t.Helper()
	return newHost(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/a/b/manifests/v1", "/v2/a/b/manifests/" + digest.FromString(manifest).String():
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Write([]byte(manifest)) //nolint:errcheck // the client tells
		case "/v2/a/b/blobs/" + digest.FromString(blob).String():
			serveBlob(w, r, []byte(blob))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

func TestFetch(t *testing.T) {
	t.Parallel()
	blob := string(noise(5000))
	absent := digest.FromString("absent")
	for _, tt := range []struct {
		name   string
		d      ocispec.Descriptor
		want   string
		err    error
		first  string // what is asked for first, below the repository
		second string
	}{
		{"manifest", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(imageManifest), Size: int64(len(imageManifest))}, imageManifest, nil, "manifests", ""},
		{"manifest of unknown type", ocispec.Descriptor{Digest: digest.FromString(imageManifest)}, imageManifest, nil, "blobs", "manifests"},
		{"manifest of another size", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(imageManifest), Size: 5}, "", ErrVerify, "manifests", ""},
		{"blob", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(blob), Size: int64(len(blob))}, blob, nil, "blobs", ""},
		{"blob of unknown size", ocispec.Descriptor{Digest: digest.FromString(blob)}, blob, nil, "blobs", "blobs"},
		{"blob that is called a manifest", ocispec.Descriptor{MediaType: dockerManifest, Digest: digest.FromString(blob)}, blob, nil, "manifests", "blobs"},
		{"neither", ocispec.Descriptor{Digest: absent, Size: 5}, "", ErrNotFound, "blobs", "manifests"},
		{"no digest", ocispec.Descriptor{Digest: "sha256:x"}, "", ErrUsage, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serving(t, imageManifest, blob)
			f := newClient(t, Options{}).Fetcher(named(t, s.addr()+"/a/b"))
			rc, err := f.Fetch(t.Context(), tt.d)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v", err)
			}
			var got []byte
			if err == nil {
				got, err = io.ReadAll(rc)
				rc.Close() //nolint:errcheck // read to the end
			}
			if tt.err == nil && (err != nil || string(got) != tt.want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			for i, kind := range []string{tt.first, tt.second} {
				if asked := s.requests(); kind != "" && (len(asked) <= i || !strings.HasPrefix(asked[i].URL.Path, "/v2/a/b/"+kind+"/")) {
					t.Errorf("request %d of %d is not for %s", i, len(asked), kind)
				}
			}
		})
	}
}

func TestFetchIsVerified(t *testing.T) {
	t.Parallel()
	right, wrong := noise(5000), noise(5000)
	wrong[4999]++
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, wrong) })
	f := newClient(t, Options{}).Fetcher(named(t, s.addr()+"/a/b"))
	rc, err := f.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(right), Size: 5000})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); !errors.Is(err, ErrVerify) || len(got) != 5000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFetchRange(t *testing.T) {
	t.Parallel()
	blob := string(noise(5000))
	for _, tt := range []struct {
		name    string
		content string
		off, n  int64
		size    int64 // of the descriptor
		want    string
		err     error
	}{
		{"middle", blob, 10, 20, 5000, blob[10:30], nil},
		{"size not known", blob, 10, 20, 0, blob[10:30], nil},
		{"to the end", blob, 4000, -1, 0, blob[4000:], nil},
		{"nothing", blob, 10, 0, 5000, "", nil},
		{"beyond", blob, 4000, 2000, 5000, "", ErrUsage},
		{"of a manifest", imageManifest, 1, 5, 0, imageManifest[1:6], nil},
		{"of a manifest, to its end", imageManifest, 1, -1, 0, imageManifest[1:], nil},
		{"beyond a manifest", imageManifest, 1, 5000, 0, "", ErrUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serving(t, imageManifest, blob)
			f := newClient(t, Options{}).Fetcher(named(t, s.addr()+"/a/b"))
			rc, err := f.FetchRange(t.Context(), ocispec.Descriptor{Digest: digest.FromString(tt.content), Size: tt.size}, tt.off, tt.n)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			defer rc.Close()
			if got, err := io.ReadAll(rc); err != nil || string(got) != tt.want {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestFetcherSize(t *testing.T) {
	t.Parallel()
	blob := string(noise(5000))
	s := serving(t, imageManifest, blob)
	f := newClient(t, Options{}).Fetcher(named(t, s.addr()+"/a/b"))
	for _, tt := range []struct {
		name string
		d    ocispec.Descriptor
		want int64
		err  error
	}{
		{"known", ocispec.Descriptor{Digest: digest.FromString("absent"), Size: 7}, 7, nil},
		{"blob", ocispec.Descriptor{Digest: digest.FromString(blob)}, 5000, nil},
		{"manifest", ocispec.Descriptor{Digest: digest.FromString(imageManifest)}, int64(len(imageManifest)), nil},
		{"neither", ocispec.Descriptor{Digest: digest.FromString("absent")}, 0, ErrNotFound},
	} {
		if got, err := f.Size(t.Context(), tt.d); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d, %v", tt.name, got, err)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	s := serving(t, imageManifest, "x")
	name, d, f, err := newClient(t, Options{}).Resolve(t.Context(), named(t, s.addr()+"/a/b:v1"))
	if err != nil || name != s.addr()+"/a/b:v1" || d.Digest != digest.FromString(imageManifest) {
		t.Fatalf("%s, %+v, %v", name, d, err)
	}
	rc, err := f.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || string(got) != imageManifest {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBlobSize(t *testing.T) {
	t.Parallel()
	content := noise(1234)
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  int64
		err   error
	}{
		{"HEAD", func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }, 1234, nil},
		{"HEAD refused", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			serveBlob(w, r, content)
		}, 1234, nil},
		{"no ranges", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			w.Header().Set("Content-Length", "1234")
			w.Write(content) //nolint:errcheck // the client tells
		}, 1234, nil},
		{"empty", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("Content-Range", "bytes */0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, 0, nil},
		{"never told", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			if r.Method != http.MethodHead {
				w.(http.Flusher).Flush()
			}
		}, 0, ErrAnswer},
		{"not there", http.NotFound, 0, ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, tt.serve)
			got, err := newClient(t, Options{}).BlobSize(t.Context(), named(t, s.addr()+"/a/b"), digest.FromBytes(content))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  []string
		err   error
	}{
		{"one page", saying(200, nil, `{"name":"a/b","tags":["b","a"]}`), []string{"b", "a"}, nil},
		{"none", saying(200, nil, `{"name":"a/b","tags":null}`), nil, nil},
		{"pages", func(w http.ResponseWriter, r *http.Request) {
			last := r.URL.Query().Get("last")
			if len(last) < 3 {
				w.Header().Set("Link", fmt.Sprintf(`</v2/a/b/tags/list?last=%sx>; rel="next"`, last))
			}
			fmt.Fprintf(w, `{"tags":["t%s"]}`, last)
		}, []string{"t", "tx", "txx", "txxx"}, nil},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, r.URL))
			fmt.Fprint(w, `{"tags":["t"]}`)
		}, nil, ErrAnswer},
		{"not JSON", saying(200, nil, `<html>`), nil, ErrAnswer},
		{"no such repository", saying(404, nil, ""), nil, ErrNotFound},
		{"denied", saying(403, nil, ""), nil, ErrDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, tt.serve)
			got, err := newClient(t, Options{}).Tags(t.Context(), named(t, s.addr()+"/a/b"))
			if !errors.Is(err, tt.err) || !cmp.Equal(tt.want, got) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// A mirror knows some tags only; better than none.
func TestTagsOfMirrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		origin  http.HandlerFunc
		want    []string
		mirrors int
	}{
		"registry answers": {saying(200, nil, `{"tags":["a","b"]}`), []string{"a", "b"}, 0},
		"registry is down": {saying(503, nil, ""), []string{"a"}, 1},
	} {
		mirror, origin := newHost(t, saying(200, nil, `{"tags":["a"]}`)), newHost(t, tt.origin)
		toml := fmt.Sprintf("server = %q\n[host.%q]\n", origin.URL, mirror.URL)
		c := newClient(t, Options{HostsDir: hostsDir(t, origin.addr(), toml)})
		got, err := c.Tags(t.Context(), named(t, origin.addr()+"/a/b"))
		if err != nil || !cmp.Equal(tt.want, got) || len(mirror.requests()) != tt.mirrors {
			t.Errorf("%s: %v, %v, mirror asked %d times", name, got, err, len(mirror.requests()))
		}
	}
}

// jws is a manifest of schema 1 as libtrust signs it, and its payload.
func jws() (raw, payload string) {
	payload = "{\n   \"schemaVersion\": 1,\n   \"name\": \"a/b\"\n}"
	header := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"formatLength":%d,"formatTail":%q}`,
		len(payload)-2, base64.RawURLEncoding.EncodeToString([]byte("\n}"))))
	raw = payload[:len(payload)-2] + fmt.Sprintf(",\n   \"signatures\": [{\"protected\": %q}]\n}", header)
	return raw, payload
}

func TestSchema1(t *testing.T) {
	t.Parallel()
	raw, payload := jws()
	right, over := digest.FromString(payload), digest.FromString(raw)
	for _, tt := range []struct {
		name, mediaType, body string
		declared              digest.Digest
		target                string
		schema                int
		want                  ocispec.Descriptor
		err                   error
	}{
		{"signed", schema1.MediaTypeSigned, raw, right, ":v1", 0, ocispec.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: right, Size: int64(len(raw))}, nil},
		{"signed, as JSON", "application/json; charset=utf-8", raw, right, ":v1", 0, ocispec.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: right, Size: int64(len(raw))}, nil},
		{"signed, by digest", schema1.MediaTypeSigned, raw, "", "@" + right.String(), 0, ocispec.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: right, Size: int64(len(raw))}, nil},
		{"signed, digest of all bytes", schema1.MediaTypeSigned, raw, over, ":v1", 0, ocispec.Descriptor{}, ErrVerify},
		{"unsigned, as JSON", "application/json", payload, right, ":v1", 0, ocispec.Descriptor{MediaType: schema1.MediaType, Digest: right, Size: int64(len(payload))}, nil},
		{"asked for", schema1.MediaTypeSigned, raw, right, ":v1", 1, ocispec.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: right, Size: int64(len(raw))}, nil},
		{"not asked for", schema1.MediaTypeSigned, raw, right, ":v1", 2, ocispec.Descriptor{}, ErrNotFound},
		{"asked for in vain", ocispec.MediaTypeImageManifest, imageManifest, "", ":v1", 1, ocispec.Descriptor{}, ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			header := map[string]string{"Content-Type": tt.mediaType}
			if tt.declared != "" {
				header["Docker-Content-Digest"] = tt.declared.String()
			}
			s := newHost(t, saying(200, header, tt.body))
			d, got, err := newClient(t, Options{Schema: tt.schema}).Manifest(t.Context(), named(t, s.addr()+"/a/b"+tt.target))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, d); diff != "" {
				t.Error(diff)
			}
			if err == nil && !bytes.Equal(got, []byte(tt.body)) {
				t.Errorf("%q", got)
			}
			old := strings.Contains(s.requests()[0].Header.Get("Accept"), "distribution.manifest.v1+")
			young := strings.Contains(s.requests()[0].Header.Get("Accept"), "image.index.v1+")
			if old != (tt.schema != 2) || young != (tt.schema != 1) {
				t.Errorf("Accept %q", s.requests()[0].Header.Get("Accept"))
			}
		})
	}
}

func FuzzDescribe(f *testing.F) {
	raw, payload := jws()
	f.Add([]byte(raw), schema1.MediaTypeSigned, "")
	f.Add([]byte(payload), "application/json", digest.FromString(payload).String())
	f.Add([]byte(imageManifest), ocispec.MediaTypeImageManifest, digest.FromString(imageManifest).String())
	f.Fuzz(func(t *testing.T, raw []byte, declaredType, declared string) {
		h := http.Header{"Content-Type": {declaredType}, "Docker-Content-Digest": {declared}}
		d, err := describe(raw, h, "")
		if err != nil {
			return
		}
		signed := raw
		if schema1.IsMediaType(d.MediaType) {
			if signed, err = schema1.Payload(raw); err != nil {
				t.Fatal(err)
			}
		}
		if d.Size != int64(len(raw)) || d.Digest != digest.FromBytes(signed) || declared != "" && !strings.HasPrefix(declared, "sha") {
			t.Errorf("%+v of %q, declared %q", d, raw, declared)
		}
	})
}

// Tokens of two seconds: many readers over several
// lifetimes, one renewal at a time and no more than needed.
func TestShortTokensUnderLoad(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	const life = 2 * time.Second
	var mu sync.Mutex
	ends := map[string]time.Time{}
	var asking, most, issued, refused atomic.Int64
	realm := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		most.Store(max(most.Load(), asking.Add(1)))
		defer asking.Add(-1)
		token := fmt.Sprintf("t%d", issued.Add(1))
		mu.Lock()
		ends["Bearer "+token] = time.Now().Add(life)
		mu.Unlock()
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":2}`, token)
	})
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		good := time.Now().Before(ends[r.Header.Get("Authorization")])
		mu.Unlock()
		if !good {
			refused.Add(1)
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm.URL+`/token",service="s",scope="repository:a/b:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serveBlob(w, r, content)
	})
	c := newClient(t, Options{MaxPerHost: 4})
	ref, d := blobRef(t, s.addr(), content)
	stop := time.Now().Add(5 * time.Second)
	var wg sync.WaitGroup
	for i := range int64(16) {
		b := c.Open(ref, d)
		wg.Go(func() {
			for time.Now().Before(stop) && !t.Failed() {
				got, err := readRange(t.Context(), b, i*1000, 500)
				if err != nil || !bytes.Equal(got, content[i*1000:i*1000+500]) {
					t.Errorf("reader %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 || issued.Load() > 6 {
		t.Errorf("%d tokens, up to %d at a time", issued.Load(), most.Load())
	}
	t.Logf("%d tokens, %d requests refused, %d in all", issued.Load(), refused.Load(), len(s.requests()))
}
