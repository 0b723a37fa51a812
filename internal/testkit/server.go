//go:build linux

package testkit

import (
	"context"
	"errors"
	"net"
	"net/http"
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

	mu   sync.Mutex // guards what follows
	http *http.Server
	done chan struct{}
}

func newServer(t testing.TB, h http.Handler) *server {
	t.Helper()
	s := &server{t: t, handler: h, addr: anyPort}
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
	s.http = &http.Server{Handler: s.handler}
	s.done = make(chan struct{})
	go func(h *http.Server, done chan struct{}) { // ends with Stop
		defer close(done)
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("serving %s: %v", s.addr, err)
		}
	}(s.http, s.done)
}

// Stop closes the port and every connection to it.
func (s *server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http == nil {
		return
	}
	if err := s.http.Close(); err != nil {
		s.t.Logf("closing %s: %v", s.addr, err)
	}
	<-s.done
	s.http = nil
}
