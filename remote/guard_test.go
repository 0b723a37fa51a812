package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestPrivateIP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ip   string
		want bool
	}{
		{"93.184.216.34", false},
		{"2606:2800:220:1::1", false},
		{"127.0.0.1", true},
		{"10.1.2.3", true},
		{"172.31.0.1", true},
		{"172.32.0.1", false},
		{"192.168.1.1", true},
		{"169.254.169.254", true}, // metadata of most clouds
		{"100.100.100.200", true}, // of Alibaba
		{"100.64.0.1", true},
		{"100.128.0.1", false},
		{"168.63.129.16", true},
		{"192.0.0.192", true}, // of Oracle
		{"0.0.0.0", true},
		{"0.1.2.3", true},
		{"224.0.0.1", true},
		{"255.255.255.255", true},
		{"::1", true},
		{"::", true},
		{"fe80::1%eth0", true},
		{"fc00::1", true},
		{"fd00:ec2::254", true}, // of AWS
		{"ff02::1", true},
		{"::ffff:10.0.0.1", true},
		{"64:ff9b::a00:1", true},
		{"64:ff9b::5db8:d822", false},
		{"64:ff9b:1:a00:0:100::", true},
		{"2002:7f00:1::", true},
		{"2002:5db8:d822::", false},
	} {
		if got := privateIP(netip.MustParseAddr(tt.ip)); got != tt.want {
			t.Errorf("%s: %v", tt.ip, got)
		}
	}
}

// resolver says that every name is 127.0.0.1.
func resolver(t *testing.T) *net.Resolver {
	t.Helper()
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := make([]byte, 512); ; {
			n, from, err := pc.ReadFrom(p)
			if err != nil {
				return
			}
			pc.WriteTo(localAnswer(p[:n]), from) //nolint:errcheck // the resolver asks again
		}
	}()
	t.Cleanup(func() {
		if err := pc.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// localAnswer answers a DNS question (RFC 1035 section 4) for an address of
// version 4 with 127.0.0.1, any other with nothing.
func localAnswer(question []byte) []byte {
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	kind := binary.BigEndian.Uint16(question[end+1:])
	out := append([]byte{}, question[:end+5]...)
	out[2], out[3] = 0x81, 0x80
	clear(out[6:12])
	if kind == 1 {
		out[7] = 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
	}
	return out
}

// A public registry leads to a name that is of this machine, by redirect and for
// a token. It is not asked.
func TestGuardedNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		lead func(w http.ResponseWriter, r *http.Request, to string)
		call func(*Client) error
	}{
		{"redirect", func(w http.ResponseWriter, r *http.Request, to string) {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}, func(c *Client) error {
			ref, d := blobRef(t, wired, noise(10))
			_, err := readRange(t.Context(), c.Open(ref, d), 1, 5)
			return err
		}},
		{"token", func(w http.ResponseWriter, _ *http.Request, to string) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", to))
			w.WriteHeader(http.StatusUnauthorized)
		}, func(c *Client) error {
			_, _, err := c.Manifest(t.Context(), named(t, wired+"/a/b"))
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inside := newHost(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			to := "http://inside.example:" + mustURL(t, inside.URL).Port() + "/secret"
			c, stop := plainWire(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { tt.lead(w, r, to) }))
			defer stop()
			r, err := c.registry(t.Context(), wired)
			if err != nil {
				t.Fatal(err)
			}
			m, ok := r.endpoints[0].client.Transport.(*meter)
			if !ok {
				t.Fatalf("transport %T", r.endpoints[0].client.Transport)
			}
			m.outside.dialer.Resolver = resolver(t)
			err = tt.call(c)
			if !errors.Is(err, ErrAnswer) || !strings.Contains(fmt.Sprint(err), "inside.example") || !strings.Contains(fmt.Sprint(err), "private address 127.0.0.1") {
				t.Errorf("error %v", err)
			}
			if n := len(inside.requests()); n != 0 {
				t.Errorf("%d requests into the private network", n)
			}
		})
	}
}

func TestGuardedTransport(t *testing.T) {
	t.Parallel()
	m := &meter{next: &http.Transport{}}
	req := func(ctx context.Context) *http.Request {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://h.example", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if m.transport(req(t.Context())) != m.next {
		t.Error("a request that may go anywhere is guarded")
	}
	named := &endpoint{base: mustURL(t, "http://h.example/v2"), authorities: map[grant]*authority{}}
	if m.transport(req(guarded(t.Context(), named))) != m.next {
		t.Error("the registry's own host is guarded")
	}
	ctx := guarded(t.Context(), &endpoint{base: mustURL(t, "http://r.example/v2")})
	own := m.transport(req(ctx))
	if own == m.next || own != m.transport(req(ctx)) {
		t.Error("guarded requests use the others' connections, or none twice")
	}
	m.next.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.example"})
	if m.transport(req(ctx)) != m.next {
		t.Error("a guarded request goes past the proxy")
	}
}

// A proxy inside does not make a registry one of the private network.
func TestRedirectBehindProxy(t *testing.T) {
	t.Parallel()
	inside := newHost(t, http.NotFound)
	proxy := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inside.URL+"/secret", http.StatusTemporaryRedirect)
	})
	c := newClient(t, Options{HostsDir: hostsDir(t, wired, fmt.Sprintf("server = \"http://%s\"\nproxy = %q\n", wired, proxy.URL))})
	ref, d := blobRef(t, wired, noise(10))
	_, err := readRange(t.Context(), c.Open(ref, d), 1, 5)
	if !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), "private network") {
		t.Errorf("error %v", err)
	}
	if n := len(inside.requests()); n != 0 || len(proxy.requests()) != 1 {
		t.Errorf("%d requests into the private network, %d to the proxy", n, len(proxy.requests()))
	}
}
