//go:build linux

package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/layer/convert"
)

// install unpacks the packages into tree, with what they need and recommend
// but for what the base system has, and finishes them over the base system.
func (w workload) install(ctx context.Context, tmp, tree, below string) error {
	names, err := resolve(ctx, tmp, w.packages)
	if err != nil {
		return err
	}
	var lower string
	if below != "" {
		system, err := resolve(ctx, tmp, base().packages)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(system, n) })
		if lower, err = unpackBase(ctx, tmp, below); err != nil {
			return err
		}
	}
	files, err := debs(ctx, filepath.Join(store(), "debs"), names)
	if err != nil {
		return err
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if err := command(ctx, tmp, "dpkg-deb", "-x", file, tree); err != nil {
			return err
		}
	}
	return w.settle(ctx, tmp, tree, lower)
}

// settle runs what the packages' scripts would have done. What that changes
// lands in tree.
func (w workload) settle(ctx context.Context, tmp, tree, lower string) (err error) {
	root := tree
	if lower != "" {
		root = filepath.Join(tmp, "root")
		work := filepath.Join(tmp, "work")
		if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+lower+",upperdir="+tree+",workdir="+work); err != nil {
			return fmt.Errorf("overlayfs in %s: %w", tmp, err)
		}
		defer func() { err = errors.Join(err, unix.Unmount(root, 0)) }()
	}
	return command(ctx, root, "sh", "-ec", w.finish)
}

// unpackBase unpacks the base system and returns where.
func unpackBase(ctx context.Context, tmp, below string) (string, error) {
	layers, err := layersOf(below, string(Gzip))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(tmp, "base")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for _, l := range layers {
		if err := command(ctx, dir, "tar", "-xzpf", blobFile(below, l.Desc.Digest)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// resolve asks apt-get what it would install on a machine that has nothing.
func resolve(ctx context.Context, tmp string, names []string) ([]string, error) {
	status := filepath.Join(tmp, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	args := append([]string{"-o", "Dir::State::status=" + status, "-o", "APT::Install-Recommends=true", "-s", "install"}, names...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("apt-get -s install %s: %w: %s", strings.Join(names, " "), err, out)
	}
	var list []string
	for _, found := range regexp.MustCompile(`(?m)^Inst (\S+) `).FindAllStringSubmatch(string(out), -1) {
		list = append(list, found[1])
	}
	slices.Sort(list)
	return list, nil
}

// nodeModules has npm install packages, as an application's image has them.
func nodeModules(ctx context.Context, tmp, tree string, packages []string) error {
	app := filepath.Join(tree, "srv", "app")
	if err := os.MkdirAll(app, 0o755); err != nil {
		return err
	}
	args := append([]string{"install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--cache", filepath.Join(tmp, "npm"), "--prefix", app}, packages...)
	return command(ctx, app, "npm", args...)
}

// smallFiles writes n files of up to 4 KiB, 100 to a directory.
func smallFiles(tree string, n int) error {
	rng := rand.New(rand.NewPCG(5, 7))
	text := make([]byte, 4<<10)
	for i := range n {
		dir := filepath.Join(tree, "srv", "data", fmt.Sprintf("%02d", i/10_000), fmt.Sprintf("%03d", i/100%100))
		if i%100 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		part := text[:rng.IntN(len(text))]
		for k := range part {
			part[k] = "etaoin shrdlu\n{}"[rng.IntN(16)]
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("item-%06d.json", i)), part, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// workloadLayer compresses a tar the way the tools do that most people use.
func workloadLayer(ctx context.Context, f Form, archive []byte) (Layer, error) {
	switch f {
	case Gzip:
		var blob bytes.Buffer
		w := gzip.NewWriter(&blob)
		if _, err := w.Write(archive); err != nil {
			return Layer{}, err
		}
		if err := w.Close(); err != nil {
			return Layer{}, err
		}
		return newLayer(ocispec.MediaTypeImageLayerGzip, blob.Bytes(), archive), nil
	case Stargz:
		return stargzAsUsual(archive)
	case ZstdChunked:
		var blob bytes.Buffer
		r, err := convert.Layer(ctx, bytes.NewReader(archive), &blob, convert.Options{Format: convert.ZstdChunked})
		return Layer{Desc: r.Desc, DiffID: r.DiffID, Blob: blob.Bytes()}, err
	default:
		return Layer{}, fmt.Errorf("workloads have no form %q", f)
	}
}

// stargzAsUsual is what nerdctl and BuildKit write: chunks of 4 MiB, all files
// in the order of the tar.
func stargzAsUsual(archive []byte) (Layer, error) {
	b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive))), estargz.WithCompressionLevel(gzip.DefaultCompression))
	if err != nil {
		return Layer{}, err
	}
	blob, err := io.ReadAll(b)
	if err != nil {
		return Layer{}, errors.Join(err, b.Close())
	}
	if err := b.Close(); err != nil {
		return Layer{}, err
	}
	l := newLayer(ocispec.MediaTypeImageLayerGzip, blob, nil)
	l.DiffID = b.DiffID()
	l.Desc.Annotations = map[string]string{stargzTOC: b.TOCDigest().String()}
	return l, nil
}
