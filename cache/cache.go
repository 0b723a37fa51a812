package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrUnusable: the cache folder cannot be used; the text says why and what
	// to do.
	ErrUnusable = sentinel.New("cache folder is unusable", errdefs.ErrFailedPrecondition)
	// ErrFull: no space, or quota, is left for the cache folder. Reads go on;
	// what was to be written is not kept.
	ErrFull = sentinel.New("cache folder is full", errdefs.ErrResourceExhausted)
)

const (
	remedy = "choose another folder with --cache or PEEL_CACHE"
	// staleTemp is the age after which a temporary document is a dead
	// process's: writing one takes seconds.
	staleTemp = time.Hour
)

// Cache is a cache folder. Its methods may be called concurrently.
type Cache struct {
	dir  string
	boot bootID
}

// Dir returns the folder used unless the user names another: /var/lib/peel for
// root, peel in the user's cache folder for others ($XDG_CACHE_HOME or
// ~/.cache on Linux).
func Dir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/peel", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: %w; %s", ErrUnusable, err, remedy)
	}
	return filepath.Join(dir, "peel"), nil
}

// Open returns the cache in dir and creates what is missing of it.
func Open(dir string) (*Cache, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = prepare(abs)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; %s", ErrUnusable, dir, err, remedy)
	}
	boot, err := currentBoot()
	if err != nil {
		return nil, fmt.Errorf("boot id: %w", err)
	}
	return &Cache{dir: abs, boot: boot}, nil
}

// Dir returns the absolute path of the folder.
func (c *Cache) Dir() string { return c.dir }

func prepare(dir string) error {
	existing, err := nearestExisting(dir)
	if err != nil {
		return err
	}
	if err := refuseOwnMount(existing); err != nil {
		return err
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return fullIfSo(err)
	}
	if err := errors.Join(writable(dir), writable(tmp)); err != nil {
		return err
	}
	return sweep(tmp, time.Now().Add(-staleTemp))
}

// nearestExisting returns dir or its closest parent that exists.
func nearestExisting(dir string) (string, error) {
	for {
		_, err := os.Stat(dir)
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return dir, err
		}
		dir = parent
	}
}

// sweep removes what killed processes left in tmp.
func sweep(tmp string, before time.Time) error {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err == nil && fi.ModTime().Before(before) {
			err = os.RemoveAll(filepath.Join(tmp, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// layerDir returns the folder of a layer's store.
func (c *Cache) layerDir(key digest.Digest) (string, error) {
	if err := key.Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	return filepath.Join(c.dir, "blobs", key.Algorithm().String(), key.Encoded()), nil
}

// document returns the path of a document.
func (c *Cache) document(kind string, key digest.Digest) (string, error) {
	if err := key.Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	folder, name, err := docFolder(kind)
	if err != nil {
		return "", err
	}
	return filepath.Join(c.dir, folder, key.Algorithm().String(), key.Encoded(), name), nil
}

// docFolder returns where documents of a kind are: in folder, each a file of
// its own or, if name is not "", the file name of a folder.
func docFolder(kind string) (folder, name string, err error) {
	switch kind {
	case "image/manifest", "image/config", "image/sizes", "index", "tree", "claims", "profile":
		folder, name, _ = strings.Cut(kind, "/")
		return folder, name, nil
	}
	return "", "", fmt.Errorf("%w: no such kind of document", errdefs.ErrInvalidArgument)
}
