package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
)

func noContext() context.Context { return context.Background() }

func TestFullDisk(t *testing.T) {
	t.Parallel()
	if err := mounter(t, "full").Run(); err != nil {
		t.Error(err)
	}
}

func TestFullDiskWhileStreaming(t *testing.T) {
	t.Parallel()
	if err := mounter(t, "full stage").Run(); err != nil {
		t.Error(err)
	}
}

// fullPart fills a file system of 1 MiB on dir.
func fullPart(dir string) error {
	if err := mount(dir); err != nil {
		return err
	}
	c, err := Open(dir)
	if err != nil {
		return err
	}
	l := make(layout, 17)
	for i := range l {
		l[i] = int64(i) * 100000
	}
	s, err := c.Store(testKey(), l.size(), l.spans())
	if err != nil {
		return err
	}
	full := 0
	for err == nil {
		err = l.put(s, full)
		full++
	}
	full--
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) || !errdefs.IsResourceExhausted(err) || full < 5 {
		return fmt.Errorf("span %d: %w", full, err)
	}
	if p, ok, err := l.read(s, 0, full); !ok || err != nil || !bytes.Equal(p, l.bytes(0, full)) {
		return fmt.Errorf("full store: %v, %w", ok, err)
	}
	if _, ok, err := l.read(s, full, 1); ok || err != nil || s.Has(full) {
		return fmt.Errorf("span that did not fit: %v, %w", ok, err)
	}
	if err := nothingElseFits(c); err != nil {
		return err
	}
	if _, err := Open(dir); err != nil {
		return fmt.Errorf("what is there cannot be used: %w", err)
	}
	return s.Close()
}

func nothingElseFits(c *Cache) error {
	big := bytes.Repeat([]byte{1}, 1<<20)
	if err := c.Write("tree", testKey(), big); !errors.Is(err, ErrFull) {
		return fmt.Errorf("Write: %w", err)
	}
	if left, err := os.ReadDir(filepath.Join(c.Dir(), "tmp")); len(left) != 0 || err != nil {
		return fmt.Errorf("left: %v, %w", left, err)
	}
	other := digest.FromString("other")
	if _, err := c.Store(other, 1<<30, maxSpans); !errors.Is(err, ErrFull) {
		return fmt.Errorf("Store: %w", err)
	}
	dir, err := c.layerDir(other)
	if err != nil {
		return err
	}
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		return fmt.Errorf("left beside the lock: %v, %w", left, err)
	}
	g, err := c.Stage(noContext(), other)
	if err != nil {
		return err
	}
	if err := g.Note(big); !errors.Is(err, ErrFull) || g.notes.n != 0 {
		return fmt.Errorf("note: %w", err)
	}
	if _, err := g.Write(big); !errors.Is(err, ErrFull) {
		return fmt.Errorf("stage: %w", err)
	}
	return g.Close()
}

// fullStagePart streams a layer that does not fit, and gives the space back.
func fullStagePart(dir string) error {
	if err := mount(dir); err != nil {
		return err
	}
	c, err := Open(dir)
	if err != nil {
		return err
	}
	g, err := c.Stage(noContext(), testKey())
	if err != nil {
		return err
	}
	for err == nil {
		if _, err = g.Write(bytes.Repeat([]byte{1}, holeSize)); err == nil {
			err = g.Note(bytes.Repeat([]byte{2}, 1000))
		}
	}
	if n, whole := g.n.Load(), g.notes.n%1000 == 0; !errors.Is(err, ErrFull) || n == 0 || !whole {
		return fmt.Errorf("%d bytes, whole notes %v: %w", n, whole, err)
	}
	if err := g.Close(); err != nil {
		return err
	}
	return c.Write("tree", testKey(), bytes.Repeat([]byte{1}, 900_000))
}

func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()
	if err := mounter(t, "readonly").Run(); err != nil {
		t.Error(err)
	}
}

func readOnlyPart(dir string) error {
	if err := mount(dir); err != nil {
		return err
	}
	if _, err := Open(dir); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	for _, dir := range []string{dir, filepath.Join(dir, "new")} {
		_, err := Open(dir)
		if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "read-only") {
			return fmt.Errorf("Open: %w", err)
		}
	}
	return nil
}

func TestFolderOnOwnMount(t *testing.T) {
	t.Parallel()
	if err := mounter(t, "own").Run(); err != nil {
		t.Error(err)
	}
}

func ownMountPart(dir string) (err error) {
	if err := mount(dir); err != nil {
		return err
	}
	for _, tt := range []struct {
		name   string
		refuse bool
	}{{"peel", true}, {"other", false}} {
		if err := openOnFUSE(filepath.Join(dir, tt.name), tt.name, tt.refuse); err != nil {
			return fmt.Errorf("fuse.%s: %w", tt.name, err)
		}
	}
	return nil
}

func openOnFUSE(dir, name string, refuse bool) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	o := &fs.Options{MountOptions: fuse.MountOptions{Name: name, DirectMountStrict: true}}
	server, err := fs.Mount(dir, &fs.Inode{}, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Unmount()) }()
	for _, dir := range []string{dir, filepath.Join(dir, "a", "b")} {
		_, err := Open(dir)
		refused := err != nil && strings.Contains(err.Error(), "is itself a mount of peel")
		if !errors.Is(err, ErrUnusable) || refused != refuse {
			return fmt.Errorf("Open: %w", err)
		}
	}
	return nil
}
