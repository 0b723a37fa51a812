package remote

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestForeignPermit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, url string
		hosts     []string
		want      permit
	}{
		{"none allowed", "https://h.example/x", nil, forbidden},
		{"by name", "https://h.example/x", []string{"a.example", "h.example"}, byName},
		{"in capitals", "https://H.Example/x", []string{"h.eXample"}, byName},
		{"its own port", "https://h.example:443/x", []string{"h.example"}, byName},
		{"another port", "https://h.example:8443/x", []string{"h.example"}, forbidden},
		{"with the port", "https://h.example:8443/x", []string{"h.example:8443"}, byName},
		{"below a domain", "https://a.b.example/x", []string{"*.b.example"}, anyPublic},
		{"the domain itself", "https://b.example/x", []string{"*.b.example"}, forbidden},
		{"similar", "https://ab.example/x", []string{"*.b.example"}, forbidden},
		{"below, another port", "https://a.b.example:1/x", []string{"*.b.example"}, forbidden},
		{"any", "http://h.example:1/x", []string{"*"}, anyPublic},
		{"any, and by name", "http://h.example:1/x", []string{"*", "h.example:1"}, byName},
		{"version 6", "http://[::1]:5000/x", []string{"[::1]:5000"}, byName},
	} {
		hosts, err := newForeignHosts(tt.hosts)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := hosts.permit(mustURL(t, tt.url)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	for _, bad := range []string{"", "https://h.example", "h.example/x", "*.", "a.*", "user@h.example", "h:x"} {
		if _, err := New(Options{ForeignHosts: []string{bad}}); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestForeignURLs(t *testing.T) {
	t.Parallel()
	list := []string{
		"https://user:secret@h.example/x?sig=1#frag", "ftp://h.example/x", "file:///etc/passwd", "https:///x", "https:opaque", "::", "",
		"http://i.example/y",
	}
	var got []string
	for _, u := range foreignURLs(append(list, make([]string, 1000)...)) {
		got = append(got, u.String())
	}
	if diff := cmp.Diff([]string{"https://h.example/x?sig=1", "http://i.example/y"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzForeign(f *testing.F) {
	f.Add("*.b.example", "https://a.b.example/x")
	f.Add("h:1", "http://user@h:1/%zz")
	f.Add("[::1%25eth0]:5", "http://[::1]:5")
	f.Fuzz(func(t *testing.T, host, raw string) {
		hosts, err := newForeignHosts([]string{host})
		if err != nil {
			return
		}
		for _, u := range foreignURLs([]string{raw}) {
			if u.User != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
				t.Fatalf("%q: %v", raw, u)
			}
			if hosts.permit(u) == byName && !strings.EqualFold(u.Hostname(), mustURL(t, "http://"+host).Hostname()) {
				t.Fatalf("%q allows %v", host, u)
			}
		}
	})
}

func TestForeignLayer(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	serve := func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }
	for _, tt := range []struct {
		name            string
		first, registry http.HandlerFunc
		allowed         []string // of "first", "second"
		want            error
		says            string
		requests        [3]int // first, second, registry, for two ranges
	}{
		{"from the first", serve, http.NotFound, []string{"first", "second"}, nil, "", [3]int{2, 0, 0}},
		{"from the second", http.NotFound, http.NotFound, []string{"first", "second"}, nil, "", [3]int{2, 2, 0}},
		{"the first is down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, http.NotFound, []string{"first", "second"}, nil, "", [3]int{1, 2, 0}},
		{"the first dies in bodies", func(w http.ResponseWriter, r *http.Request) { serve(&cut{w, 20}, r) }, http.NotFound, []string{"first"}, ErrUnreachable, "EOF", [3]int{4, 0, 4}},
		{"the first dies, the second goes on", func(w http.ResponseWriter, r *http.Request) { serve(&cut{w, 20}, r) }, http.NotFound, []string{"first", "second"}, nil, "", [3]int{1, 2, 0}},
		{"the registry has it", http.NotFound, serve, []string{"first"}, nil, "", [3]int{2, 0, 3}},
		{"only the registry is asked", serve, serve, nil, nil, "", [3]int{0, 0, 3}},
		{"nobody has it", http.NotFound, http.NotFound, []string{"first"}, ErrNotFound, "not found on", [3]int{1, 0, 2}},
		{"the first is missing, the second not allowed", http.NotFound, http.NotFound, []string{"first"}, ErrNotFound, "the layer also lies at SECOND; if you trust that host, allow it with --foreign-layers SECOND", [3]int{1, 0, 2}},
		{"the first is down, the second not allowed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, http.NotFound, []string{"first"}, ErrUnreachable, "allow it with --foreign-layers SECOND", [3]int{4, 0, 5}},
		{"nobody may be asked", serve, http.NotFound, nil, ErrDenied, "allow it with --foreign-layers FIRST", [3]int{0, 0, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first, second := newHost(t, tt.first), newHost(t, serve)
			registry := newHost(t, challenge(tt.registry))
			o := Options{Keychain: keys{
				registry.addr(): {Username: "user", Password: "pass"},
				first.addr():    {Username: "never", Password: "sent"},
			}}
			hosts := map[string]*host{"first": first, "second": second}
			for _, name := range tt.allowed {
				o.ForeignHosts = append(o.ForeignHosts, hosts[name].addr())
			}
			c := newClient(t, o)
			ref, d := blobRef(t, registry.addr(), content)
			d.URLs = []string{"ftp://h.example/x", first.URL + "/layer?sig=1", second.URL + "/layer"}
			b := c.Open(ref, d)
			var err error
			for off := range int64(2) {
				if err == nil {
					_, err = readRange(t.Context(), b, 1+off*30_000, 20_000)
				}
			}
			says := strings.NewReplacer("FIRST", first.addr(), "SECOND", second.addr()).Replace(tt.says)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("error %v, want %q", err, says)
			}
			if tt.want == ErrDenied && !errdefs.IsPermissionDenied(err) { //nolint:errorlint // of this table
				t.Errorf("class of %v", err)
			}
			got := [3]int{len(first.requests()), len(second.requests()), len(registry.requests())}
			if diff := cmp.Diff(tt.requests, got); diff != "" {
				t.Error(diff)
			}
			for _, r := range append(first.requests(), second.requests()...) {
				if r.Header.Get("Authorization") != "" || r.Header.Get("User-Agent") != "peel" || r.Header.Get("Range") == "" || r.Header.Get("Referer") != "" {
					t.Errorf("foreign host got %v", r.Header)
				}
			}
		})
	}
}

// The redirect of a foreign host is remembered, and guarded.
func TestForeignRedirect(t *testing.T) {
	t.Parallel()
	content := noise(5000)
	cdn := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	lead := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, cdn.URL+"/y?sig=1", http.StatusFound)
	})
	registry := newHost(t, http.NotFound)
	ref, d := blobRef(t, registry.addr(), content)
	d.URLs = []string{lead.URL + "/x"}

	b := newClient(t, Options{ForeignHosts: []string{lead.addr()}}).Open(ref, d)
	for off := range int64(4) {
		wantRange(t, b, content, 1+off, 100)
	}
	if n, m := len(lead.requests()), len(cdn.requests()); n != 1 || m != 4 {
		t.Errorf("%d and %d requests", n, m)
	}

	_, err := readRange(t.Context(), newClient(t, Options{ForeignHosts: []string{"*"}}).Open(ref, d), 1, 100)
	if !errors.Is(err, ErrAnswer) {
		t.Errorf("a host of a private network, named by a manifest: %v", err)
	}
	for _, says := range []string{"private address 127.0.0.1", "patterns of --foreign-layers do not allow", "name it: --foreign-layers " + lead.addr()} {
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q not in: %v", says, err)
		}
	}
	if n := len(lead.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}
