package remote

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// guardKey marks the context of a request that must not end in a private
// network: one that a public registry, or a manifest, sends the client to.
// Names are looked at when they are dialled, so that none resolves to something
// else than what was checked.
type guardKey struct{}

// guarded marks ctx. The own host of a registry, which the user named, may be
// anywhere; that of a foreign layer may not.
func guarded(ctx context.Context, own *endpoint) context.Context {
	return context.WithValue(ctx, guardKey{}, own)
}

func isGuarded(req *http.Request) bool {
	own, marked := req.Context().Value(guardKey{}).(*endpoint)
	return marked && (own.foreign() || !own.owns(req.URL))
}

// insideError is the reason why a guarded connection was not made.
type insideError struct{ addr netip.Addr }

func (e insideError) Error() string { return e.addr.String() + " is a private address" }

// outside makes the connections of guarded requests. They are kept apart from
// the others, since a connection that was made for a request that may go
// anywhere would be used again for one that may not.
type outside struct {
	dialer net.Dialer

	mu        sync.Mutex // guards transport
	transport *http.Transport
}

// of returns a transport like t that connects to no private address.
func (o *outside) of(t *http.Transport) *http.Transport {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.transport == nil {
		o.dialer.Timeout, o.dialer.KeepAlive = 30*time.Second, 30*time.Second
		o.dialer.ControlContext = refuseInside
		o.transport = t.Clone()
		o.transport.Proxy = nil
		o.transport.DialContext = o.dialer.DialContext
	}
	return o.transport
}

func (o *outside) closeIdle() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.transport != nil {
		o.transport.CloseIdleConnections()
	}
}

// refuseInside is a net.Dialer's ControlContext.
func refuseInside(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if privateIP(at.Addr()) {
		return insideError{at.Addr()}
	}
	return nil
}

// private reports whether a host is known, without asking DNS, not to be on
// the public internet.
func private(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && privateIP(ip)
}

// privateIP: addresses that are not of the public internet, those of the
// metadata services of clouds among them, as IPv6 may carry them, too.
func privateIP(ip netip.Addr) bool {
	ip = ip.WithZone("").Unmap()
	if embedded, ok := embeddedIPv4(ip); ok {
		ip = embedded
	}
	switch {
	case ip.IsLoopback(), ip.IsPrivate(), ip.IsLinkLocalUnicast(), ip.IsUnspecified(), ip.IsMulticast():
		return true
	case !ip.Is4():
		// Translators within a network may put an IPv4 address anywhere behind
		// 64:ff9b:1::/48 (RFC 8215).
		b := ip.As16()
		return [6]byte(b[:6]) == [6]byte{0, 0x64, 0xff, 0x9b, 0, 1}
	}
	b := ip.As4()
	return b[0] == 0 || // this network (RFC 791)
		b[0] == 100 && b[1]&0xc0 == 64 || // carrier's own, 100.64.0.0/10 (RFC 6598)
		b[0] == 192 && b[1] == 0 && b[2] == 0 || // protocol assignments (RFC 6890)
		b[0] >= 240 || // reserved, and broadcast
		b == [4]byte{168, 63, 129, 16} // Azure's metadata service
}

// embeddedIPv4 is the address that an IPv6 one is translated to: NAT64
// (RFC 6052), 6to4 (RFC 3056).
func embeddedIPv4(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() {
		return ip, false
	}
	b := ip.As16()
	switch {
	case [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b}:
		return netip.AddrFrom4([4]byte(b[12:])), true
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return ip, false
}

func insideFault(host string, e insideError) *fault {
	return &fault{class: ErrAnswer, text: fmt.Sprintf("%s has the private address %s, and is named by a public host; refused", host, e.addr)}
}
