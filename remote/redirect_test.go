package remote

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestFollow(t *testing.T) {
	t.Parallel()
	public, inside := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("10.1.2.3")
	for _, tt := range []struct {
		name, at string
		peer     netip.Addr
		target   string
		want     string // empty: refused
	}{
		{"another host", "https://r.example/v2/x", public, "https://cdn.example/y?sig=1", "https://cdn.example/y?sig=1"},
		{"relative", "https://r.example/v2/x", public, "../y", "https://r.example/y"},
		{"public to loopback", "https://r.example/v2/x", public, "http://127.0.0.1:80/y", ""},
		{"public to localhost", "https://r.example/v2/x", public, "http://LocalHost./y", ""},
		{"public to private", "https://r.example/v2/x", public, "http://192.168.0.1/y", ""},
		{"public to metadata service", "https://r.example/v2/x", public, "http://169.254.169.254/latest", ""},
		{"public to mapped loopback", "https://r.example/v2/x", public, "http://[::ffff:127.0.0.1]/y", ""},
		{"public to unspecified", "https://r.example/v2/x", public, "http://0.0.0.0/y", ""},
		{"unknown peer", "https://r.example/v2/x", netip.Addr{}, "http://10.0.0.1/y", ""},
		{"registry inside, by name", "https://r.corp.example/v2/x", inside, "http://10.0.0.5:9000/y", "http://10.0.0.5:9000/y"},
		{"registry inside, by address", "http://10.1.2.3/v2/x", netip.Addr{}, "http://10.0.0.5:9000/y", "http://10.0.0.5:9000/y"},
		{"other scheme", "https://r.example/v2/x", public, "file:///etc/passwd", ""},
		{"no target", "https://r.example/v2/x", public, "", ""},
		{"unreadable", "https://r.example/v2/x", public, "https://a b/", ""},
	} {
		got, err := follow(mustURL(t, tt.at), tt.peer, tt.target)
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s: %v", tt.name, got)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, query string
		want        time.Time
	}{
		{"none", "sig=x", time.Time{}},
		{"S3", "X-Amz-Date=20260102T030405Z&X-Amz-Expires=600", time.Date(2026, 1, 2, 3, 14, 5, 0, time.UTC)},
		{"S3, absurd", "X-Amz-Date=20260102T030405Z&X-Amz-Expires=2000000000", time.Date(2026, 2, 1, 3, 4, 5, 0, time.UTC)},
		{"S3, negative", "X-Amz-Date=20260102T030405Z&X-Amz-Expires=-1", time.Time{}},
		{"GCS", "X-Goog-Date=20260102T030405Z&X-Goog-Expires=60", time.Date(2026, 1, 2, 3, 5, 5, 0, time.UTC)},
		{"CloudFront", "Expires=1767323045", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"Azure", "se=2026-01-02T03%3A04%3A05Z", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"Azure, minutes", "se=2026-01-02T03%3A04Z", time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)},
		{"garbage", "X-Amz-Date=x&Expires=y&se=z", time.Time{}},
	} {
		if got := expiry(mustURL(t, "https://cdn.example/x?"+tt.query)); !got.Equal(tt.want) {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	got := redact(mustURL(t, "https://user:pass@h.example/p?X-Amz-Signature=secret#frag"))
	if got != "https://h.example/p" {
		t.Error(got)
	}
}

func TestPlainByDefault(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		domain string
		want   bool
	}{
		{"localhost", true},
		{"localhost:5000", true},
		{"localhost:443", false},
		{"127.0.0.1:5000", true},
		{"127.9.9.9", true},
		{"[::1]:5000", true},
		{"[::1]", true},
		{"docker.io", false},
		{"localhost.example:5000", false},
		{"10.0.0.1:5000", false},
	} {
		if got := plainByDefault(tt.domain); got != tt.want {
			t.Errorf("%s: %v", tt.domain, got)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body, want string }{
		{"error object", `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, `"TOOMANYREQUESTS: slow down"`},
		{"text", "Client sent an HTTP request to an HTTPS server.\nmore", `"Client sent an HTTP request to an HTTPS server."`},
		{"terminal escapes", "\x1b[31mred", `"\x1b[31mred"`},
		{"page", "<html>", ""},
		{"empty", "", ""},
		{"long", strings.Repeat("x", 9000), `"` + strings.Repeat("x", maxErrorText) + `"`},
	} {
		got := message(strings.NewReader(tt.body))
		if (got == nil) != (tt.want == "") || got != nil && got.Error() != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		in   string
		want time.Duration
	}{
		{"", 0},
		{"7", 7 * time.Second},
		{"-7", 0},
		{"soon", 0},
		{"Fri, 02 Jan 2026 03:04:15 GMT", 10 * time.Second},
		{"Fri, 02 Jan 2026 03:04:00 GMT", 0},
	} {
		if got := retryAfter(tt.in, now); got != tt.want {
			t.Errorf("%q: %v", tt.in, got)
		}
	}
}
