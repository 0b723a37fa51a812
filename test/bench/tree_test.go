//go:build linux

package bench

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	bigName = "big.bin"
	bigSize = 1 << 30 // bytes
)

// packages are the tree, a list a layer: about 94 000 entries and 930 MB.
func packages() [][]string {
	return [][]string{
		{"golang-1.19-src", "libboost1.74-dev"},
		{"rust-src", "texlive-latex-extra"},
		{"llvm-14-dev", "linux-doc-6.1"},
	}
}

// tree is the extracted packages.
type tree struct {
	dir     string
	layers  []string // extracted, bottom first
	paths   []string // below a mount's root
	entries int
	bytes   int64
}

func run(b *testing.B, name string, args ...string) string {
	b.Helper()
	out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func buildTree(b *testing.B) *tree {
	b.Helper()
	t := &tree{dir: b.TempDir()}
	for i, names := range packages() {
		layer := filepath.Join(t.dir, fmt.Sprint("layer", i))
		if err := os.Mkdir(layer, 0o755); err != nil {
			b.Fatal(err)
		}
		for _, deb := range testkit.Debs(b, names...) {
			run(b, "dpkg-deb", "-x", deb, layer)
		}
		t.layers = append(t.layers, layer)
	}
	if err := writeNoise(filepath.Join(t.layers[2], bigName)); err != nil {
		b.Fatal(err)
	}
	return t
}

// writeNoise writes bigSize bytes that no compression and no hole shortens.
func writeNoise(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	rng := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	for range bigSize / len(buf) {
		if _, err := rng.Read(buf); err != nil {
			return err
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Close()
}

// mount is one of the two things compared.
type mount struct {
	dir string
	tr  *tree
	pid int // of the server, 0 for the kernel
}

func (t *tree) mountOverlay(b *testing.B) *mount {
	b.Helper()
	dir := filepath.Join(t.dir, "overlay")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	lower := t.layers[2] + ":" + t.layers[1] + ":" + t.layers[0]
	run(b, "mount", "-t", "overlay", "overlay", "-o", "ro,lowerdir="+lower, dir)
	b.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			b.Error(err)
		}
	})
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		t.paths = append(t.paths, rel)
		if fi, ierr := d.Info(); ierr == nil && fi.Mode().IsRegular() && d.Name() != bigName {
			t.bytes += fi.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	t.entries = len(t.paths)
	return &mount{dir: dir, tr: t}
}

// times of mounting.
type times struct{ first, second time.Duration }

// mountPeel publishes the layers as plain tars, so that the first mount brings
// every byte into the store, and mounts twice: the second time with the
// registry off.
func (t *tree) mountPeel(b *testing.B) (*mount, times) {
	b.Helper()
	reg := testkit.NewRegistry(b)
	var blobs []testkit.Layer
	for _, layer := range t.layers {
		name := layer + ".tar"
		run(b, "tar", "--sort=name", "--numeric-owner", "-C", layer, "-cf", name, ".")
		data, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		l, err := testkit.PlainTar.Encode(data)
		if err != nil {
			b.Fatal(err)
		}
		blobs = append(blobs, l)
		if err := os.Remove(name); err != nil {
			b.Fatal(err)
		}
	}
	desc := reg.Publish(b, "bench", "tree", blobs...)
	b.Logf("image %s", desc.Digest)
	p := testkit.NewPeel(b)
	var took times
	start := time.Now()
	dir := p.Mount(reg.Ref("bench", "tree"))
	took.first = time.Since(start)
	p.Umount(dir)
	reg.Stop()
	start = time.Now()
	dir = p.Mount(reg.Ref("bench", "tree"))
	took.second = time.Since(start)
	return &mount{dir: dir, tr: t, pid: p.ServerPID(dir)}, took
}
