//go:build linux

package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types of Docker schema 1.
const (
	Schema1       = "application/vnd.docker.distribution.manifest.v1+json"
	Schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	Schema2       = dockerManifest
)

// An OldRegistry is Debian's docker-registry 2.8 as a process of its own. It
// keeps Docker schema 1, and converts schema 2 for clients that accept nothing
// else. A proxy before it has seen all requests.
type OldRegistry struct{ *Proxy }

// NewOldRegistry starts docker-registry.
func NewOldRegistry(t testing.TB) *OldRegistry {
	t.Helper()
	addr := daemon(t, "docker-registry", func(dir, addr string) []string {
		config := map[string]any{
			"version": "0.1",
			"log":     map[string]any{"level": "error", "accesslog": map[string]any{"disabled": true}},
			"storage": map[string]any{
				"filesystem":  map[string]any{"rootdirectory": filepath.Join(dir, "data")},
				"delete":      map[string]any{"enabled": true},
				"redirect":    map[string]any{"disable": true},
				"maintenance": map[string]any{"uploadpurging": map[string]any{"enabled": false}},
			},
			"http":          map[string]any{"addr": addr, "secret": "only for tests"},
			"compatibility": map[string]any{"schema1": map[string]any{"enabled": true}},
		}
		data, err := json.Marshal(config) // JSON is YAML too
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "config.yml")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"serve", name}
	})
	return &OldRegistry{NewProxy(t, addr)}
}

// Push copies one tag of an OCI layout to the registry.
func (r *OldRegistry) Push(t testing.TB, dir, tag, repo string) ocispec.Descriptor {
	t.Helper()
	return Push(t, r.Host(), dir, tag, repo)
}

// PushSchema1 copies an image of Docker schema 1 from a folder that skopeo
// calls dir:. The manifest's name and tag, and its signature, become this
// repository's.
func (r *OldRegistry) PushSchema1(t testing.TB, dir, repo, tag string) {
	t.Helper()
	RunSkopeo(t, "copy", "--quiet", "--dest-tls-verify=false", "dir:"+dir, "docker://"+r.Ref(repo, tag))
}

// RunSkopeo runs skopeo and returns what it printed.
func RunSkopeo(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("skopeo %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String()
}

// PutBlob uploads a blob in one piece (OCI distribution specification, end-4a
// and end-6).
func PutBlob(t testing.TB, host, repo string, blob []byte) digest.Digest {
	t.Helper()
	base := "http://" + host
	where := send(t, http.MethodPost, base+"/v2/"+repo+"/blobs/uploads/", "", nil).Get("Location")
	if strings.HasPrefix(where, "/") {
		where = base + where
	}
	join := "?"
	if strings.Contains(where, "?") {
		join = "&"
	}
	d := digest.FromBytes(blob)
	send(t, http.MethodPut, where+join+"digest="+d.String(), "application/octet-stream", blob)
	return d
}

// PutManifest uploads a manifest byte for byte.
func PutManifest(t testing.TB, host, repo, tag, mediaType string, raw []byte) {
	t.Helper()
	send(t, http.MethodPut, "http://"+host+"/v2/"+repo+"/manifests/"+tag, mediaType, raw)
}

func send(t testing.TB, method, url, mediaType string, body []byte) http.Header {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusMultipleChoices {
		t.Fatal(fmt.Errorf("%s %s: %s: %s (%w)", method, url, resp.Status, text, err))
	}
	return resp.Header
}
