//go:build linux

package profile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/peelfs/peel/internal/testkit"
)

// waits is how long a server may take to find out.
const waits = 10 * time.Second

// withReferrers is a registry that has the referrers API.
func withReferrers(t *testing.T) (host string) {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// publish pushes layers as an image.
func publish(t *testing.T, ref string, layers ...testkit.Layer) {
	t.Helper()
	l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Image(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("it", d); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(all.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// do sends a request to a registry, and returns the body of the answer.
func do(t *testing.T, method, url, mediaType string, body []byte) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", mediaType)
	resp, err := (&http.Client{}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s, %v", method, url, resp.Status, err)
	}
	return out
}

// sizes are how a manifest states the size of a profile: of the blob, and in
// the annotation.
func sizes(n int) []string {
	return []string{fmt.Sprintf(`"size":%d}`, n), fmt.Sprintf(`\"size\":%d}`, n)}
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

// blob uploads one.
func blob(t *testing.T, host, repo string, data []byte) {
	t.Helper()
	do(t, http.MethodPost, "http://"+host+"/v2/"+repo+"/blobs/uploads/?digest="+sum(data), "application/octet-stream", data)
}

// TestRefused: whatever is attached to an image as its profile, a mount shows
// the image, says what is wrong and learns what is right by itself.
func TestRefused(t *testing.T) {
	t.Parallel()
	host := withReferrers(t)
	ref, other := host+"/team/app:v1", host+"/team/other:v1"
	publish(t, ref, layers(t, testkit.Stargz, few)...)
	publish(t, other, layers(t, testkit.Stargz, few/3)...)
	p := testkit.NewPeel(t)
	use(t, p, ref, 0, 5)
	pushed := p.Must("profile", "push", ref).Stdout
	_, digest, _ := strings.Cut(strings.TrimSpace(pushed), "@")
	artifact := do(t, http.MethodGet, "http://"+host+"/v2/team/app/manifests/"+digest, "", nil)
	var list struct {
		Layers []struct {
			Digest string
			Size   int
		}
		Subject json.RawMessage
	}
	if err := json.Unmarshal(artifact, &list); err != nil {
		t.Fatal(err)
	}
	profile := do(t, http.MethodGet, "http://"+host+"/v2/team/app/blobs/"+list.Layers[0].Digest, "", nil)
	subject := do(t, http.MethodGet, "http://"+host+"/v2/team/other/manifests/v1", "", nil)
	var was, is struct {
		Digest string `json:"digest"`
		Size   int    `json:"size"`
		Type   string `json:"mediaType"`
	}
	if err := json.Unmarshal(list.Subject, &was); err != nil {
		t.Fatal(err)
	}
	is = was
	is.Digest, is.Size = sum(subject), len(subject)
	theirs, err := json.Marshal(is)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		blob []byte
		says string
	}{
		{"of another image", profile, "a profile of image " + was.Digest},
		{"cut off", profile[:len(profile)/2], "malformed"},
		{"nonsense", bytes.Repeat([]byte("x"), 1000), "malformed"},
		{"empty", nil, "malformed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			blob(t, host, "team/other", tc.blob)
			raw := bytes.Replace(artifact, list.Subject, theirs, 1)
			raw = bytes.ReplaceAll(raw, []byte(list.Layers[0].Digest), []byte(sum(tc.blob)))
			was, is := sizes(len(profile)), sizes(len(tc.blob))
			for i := range was {
				raw = bytes.ReplaceAll(raw, []byte(was[i]), []byte(is[i]))
			}
			do(t, http.MethodPut, "http://"+host+"/v2/team/other/manifests/"+sum(raw), "application/vnd.oci.image.manifest.v1+json", raw)
			defer do(t, http.MethodDelete, "http://"+host+"/v2/team/other/manifests/"+sum(raw), "", nil)

			q := testkit.NewPeel(t)
			root := q.Mount(other)
			readFiles(t, root, few/3, 0, 5)
			if !q.Until(waits, func() bool { return strings.Contains(q.Logs(), tc.says) }) {
				t.Errorf("the log does not say %q:\n%s", tc.says, q.Logs())
			}
			q.Umount(root)
			if s := show(t, q, other); s.OwnRuns != 1 || s.From != "" || len(s.Touches) != 5 {
				t.Errorf("%+v", s)
			}
			if r := testkit.NewPeel(t).Run("profile", "pull", other); r.Code == testkit.OK || !strings.Contains(r.Stderr, tc.says) {
				t.Errorf("%+v", r)
			}
		})
	}
}
