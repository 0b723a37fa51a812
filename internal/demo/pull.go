package demo

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// puller gets a whole image the way container engines do: all layers in
// parallel, each checked against its digest, unpacked in order as they arrive.
type puller struct {
	srv  *server
	http *http.Client
	tmp  string // folder for downloads
}

// pull unpacks the image into the empty folder dir.
func (s *server) pull(ctx context.Context, dir, tmp string) (err error) {
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	p := &puller{srv: s, http: &http.Client{Transport: tr}, tmp: tmp}
	layers, err := p.layers(ctx)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()

	g, ctx := errgroup.WithContext(ctx)
	below := make(chan struct{}) // closed when every lower layer is unpacked
	close(below)
	for _, d := range layers {
		wait, done := below, make(chan struct{})
		below = done
		g.Go(func() error {
			file, err := p.download(ctx, d)
			if err != nil {
				return err
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer close(done)
			return unpack(ctx, root, file)
		})
	}
	return g.Wait()
}

// layers asks for manifest and config, as an engine would.
func (p *puller) layers(ctx context.Context) ([]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := p.get(ctx, p.srv.url("manifests", tag), func(r io.Reader) error { return json.NewDecoder(r).Decode(&m) }); err != nil {
		return nil, err
	}
	discard := func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	return m.Layers, p.get(ctx, p.srv.url("blobs", m.Config.Digest.String()), discard)
}

func (p *puller) get(ctx context.Context, url string, use func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return use(resp.Body)
}

func (p *puller) download(ctx context.Context, d ocispec.Descriptor) (file string, err error) {
	file = filepath.Join(p.tmp, d.Digest.Encoded())
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := digest.Canonical.Digester()
	err = p.get(ctx, p.srv.url("blobs", d.Digest.String()), func(r io.Reader) error {
		_, err := io.Copy(io.MultiWriter(f, hash.Hash()), r)
		return err
	})
	if err == nil && hash.Digest() != d.Digest {
		err = fmt.Errorf("layer %s: got %s", d.Digest, hash.Digest())
	}
	return file, err
}

func unpack(ctx context.Context, root *os.Root, file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(file)) }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = unpackEntry(root, h, tr)
		}
		if err != nil {
			return err
		}
	}
}

func unpackEntry(root *os.Root, h *tar.Header, data io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(filepath.Clean(h.Name), 0o755)
	case tar.TypeSymlink:
		err := root.Symlink(h.Linkname, h.Name)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	case tar.TypeReg:
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fs.FileMode(h.Mode).Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, data)
		return errors.Join(err, f.Close())
	}
	return nil
}
