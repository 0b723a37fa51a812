//go:build linux

package testkit

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
)

const anyPort = "127.0.0.1:0"

// A server answers on one loopback port for the whole test, except between
// Stop and Start.
type server struct {
	t       testing.TB
	handler http.Handler
	addr    string
	tls     *tls.Config // nil: plain HTTP; else HTTP/2 as well

	mu   sync.Mutex // guards what follows
	http *http.Server
	done chan struct{}
	wire []Wire
}

func newServer(t testing.TB, h http.Handler) *server {
	t.Helper()
	return newTLSServer(t, nil, h)
}

func newTLSServer(t testing.TB, config *tls.Config, h http.Handler) *server {
	t.Helper()
	s := &server{t: t, handler: h, addr: anyPort, tls: config}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Host is the server's address and port, as it stands in references.
func (s *server) Host() string { return s.addr }

// Start listens again on the port of before.
func (s *server) Start() {
	s.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.WithoutCancel(s.t.Context()), "tcp", s.addr)
	if err != nil {
		s.t.Fatalf("listening on loopback: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == anyPort {
		s.addr = l.Addr().String()
	}
	h := &http.Server{Handler: s.recorded(), ErrorLog: quiet(), TLSConfig: s.tls}
	s.http = h
	serve := h.Serve
	if s.tls != nil {
		serve = func(l net.Listener) error { return h.ServeTLS(l, "", "") } // HTTP/2 for those who want it
	}
	s.done = make(chan struct{})
	go func(done chan struct{}) { // ends with Stop
		defer close(done)
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("serving %s: %v", s.addr, err)
		}
	}(s.done)
}

// Stop closes the port and every connection to it.
func (s *server) Stop() {
	s.mu.Lock()
	h, done := s.http, s.done
	s.http = nil
	s.mu.Unlock()
	if h == nil {
		return
	}
	if err := h.Close(); err != nil {
		s.t.Logf("closing %s: %v", s.addr, err)
	}
	<-done
}

func (s *server) recorded() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := Wire{Method: r.Method, URI: r.URL.RequestURI(), Host: r.Host, Proto: r.Proto, Header: r.Header.Clone()}
		s.mu.Lock()
		s.wire = append(s.wire, seen)
		s.mu.Unlock()
		s.handler.ServeHTTP(w, r)
	})
}

// Wire is all that has arrived so far.
func (s *server) Wire() []Wire {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wire)
}
