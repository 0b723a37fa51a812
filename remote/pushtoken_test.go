package remote

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// One token that pulls and pushes is asked for, though the first answer wants
// one that pulls.
func TestPushToken(t *testing.T) {
	t.Parallel()
	real := distribution(t)
	r := newTokenRegistry(t)
	front := newHost(t, func(w http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("Authorization"); got == "" || got != *r.accepted.Load() {
			r.registry.Config.Handler.ServeHTTP(w, req) // which refuses
			return
		}
		real.Config.Handler.ServeHTTP(w, req)
	})
	c := newClient(t, Options{Keychain: keys{front.addr(): {Username: "u", Password: "p"}}})
	repo := c.Repository(named(t, front.addr()+"/a/b"))
	d, _ := pushImage(t, repo, gzipped(t, []byte("layer")), "v1")
	pushReferrer(t, repo, d, "x")
	asked := r.realm.requests()
	if len(asked) != 1 || asked[0].URL.Query().Get("scope") != "repository:a/b:pull,push" {
		t.Errorf("%d token requests, %v", len(asked), asked[0].URL)
	}
	if _, err := c.MountBlob(t.Context(), repo.name, named(t, front.addr()+"/c/d"), digest.FromString("x")); err != nil {
		t.Error(err)
	}
	if asked = r.realm.requests(); len(asked) != 2 || cmp.Diff([]string{"repository:a/b:pull,push", "repository:c/d:pull"}, asked[1].URL.Query()["scope"]) != "" {
		t.Errorf("%d token requests, %v", len(asked), asked[len(asked)-1].URL)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		grant     grant
		challenge []string
		want      []string
	}{
		{"pull, as the registry says", pulling("a/b"), []string{"repository:x/a/b:pull"}, []string{"repository:x/a/b:pull"}},
		{"pull, registry says nothing", pulling("a/b"), nil, []string{"repository:a/b:pull"}},
		{"push", pushing("a/b"), []string{"repository:a/b:pull"}, []string{"repository:a/b:pull,push"}},
		{"push, longer name", pushing("a/b"), []string{"repository:x/a/b:pull"}, []string{"repository:x/a/b:pull,push"}},
		{"push, other scopes", pushing("a/b"), []string{"registry:catalog:*"}, []string{"registry:catalog:*", "repository:a/b:pull,push"}},
		{"push, broken scope", pushing("a/b"), []string{"repository"}, []string{"repository", "repository:a/b:pull,push"}},
		{"push, registry says nothing", pushing("a/b"), nil, []string{"repository:a/b:pull,push"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.grant.scopes(tt.challenge)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A token that ends during a push is renewed, and what it was refused for sent
// again.
func TestPushTokenEndsInUse(t *testing.T) {
	t.Parallel()
	real := distribution(t)
	r := newTokenRegistry(t)
	front := newHost(t, func(w http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("Authorization"); got == "" || got != *r.accepted.Load() {
			r.registry.Config.Handler.ServeHTTP(w, req) // which refuses
			return
		}
		real.Config.Handler.ServeHTTP(w, req)
		r.revoke()
	})
	c := newClient(t, Options{})
	repo := c.Repository(named(t, front.addr()+"/a/b"))
	content := noise(300_000)
	if err := upload(t.Context(), repo, content, 100_000); err != nil {
		t.Fatal(err)
	}
	if err := c.PushBlob(t.Context(), repo.name, describing("", content[:70_000]), opener(content[:70_000])); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{300_000, 70_000} {
		wantRange(t, c.Open(repo.name, describing("", content[:n])), content, 0, n)
	}
	if n := c.Stats().Retries; n != 0 {
		t.Errorf("%d retries", n)
	}
}
