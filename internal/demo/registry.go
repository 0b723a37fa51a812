package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/link"
)

// repository and tag name the image on the demo's registry.
const repository, tag = "demo", "latest"

// shelf serves the blobs of a folder; it is a registry.BlobHandler. The
// registry's own one reads a blob whole for every range of it.
type shelf string

func (s shelf) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	fi, err := os.Stat(filepath.Join(string(s), h.Hex))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, registry.ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (s shelf) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(string(s), h.Hex))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, registry.ErrNotFound
	}
	return f, err
}

// server is a registry on loopback at the far end of a line.
type server struct {
	host string // address and port
	line *link.Link
	http *http.Server
	done chan error
}

// serve starts a registry that offers img, whose blobs are in the folder.
func serve(ctx context.Context, img *image, blobs string, line *link.Link) (*server, error) {
	reg := registry.New(registry.WithBlobHandler(shelf(blobs)), registry.Logger(log.New(io.Discard, "", 0)))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{
		host: l.Addr().String(), line: line, done: make(chan error, 1),
		http: &http.Server{
			Handler: line.Handler(reg), ConnContext: link.ConnContext,
			ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		},
	}
	go func() { s.done <- s.http.Serve(l) }() // ends with close
	if err := s.push(ctx, img); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// reference is what to mount.
func (s *server) reference() string { return s.host + "/" + repository + ":" + tag }

func (s *server) url(kind, what string) string {
	return "http://" + s.host + "/v2/" + repository + "/" + kind + "/" + what
}

func (s *server) push(ctx context.Context, img *image) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url("manifests", tag), bytes.NewReader(img.manifest))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
	t := &http.Transport{DisableKeepAlives: true}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("push %s: %s", s.reference(), resp.Status)
	}
	return nil
}

// close stops serving at once.
func (s *server) close() error {
	err := s.http.Close()
	if serr := <-s.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
