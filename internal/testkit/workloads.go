//go:build linux

package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// workloadVersion changes with everything in this package that changes the
// images of workloads.
const workloadVersion = 1

// A workload is an image that people start containers from: Debian's base
// system in one layer, packages with all that they depend on and recommend in
// the next, and files of its own in a third.
type workload struct {
	name     string
	packages []string
	finish   string // run by sh in the tree of the packages, as their maintainer scripts would
	npm      []string
	files    int // small files, in directories of 100
}

// base is what the lowest layer of all workloads is made of.
func base() workload {
	return workload{name: "base", packages: []string{
		"base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils", "grep", "gzip",
		"hostname", "libc-bin", "login", "mawk", "mount", "ncurses-base", "ncurses-bin", "passwd", "perl-base", "sed", "tar", "tzdata",
		"util-linux", "apt", "ca-certificates", "netbase",
	}, finish: `cp usr/share/base-passwd/passwd.master etc/passwd; cp usr/share/base-passwd/group.master etc/group
		ln -s mawk usr/bin/awk; chroot . ldconfig`}
}

func workloads() []workload {
	return []workload{
		{name: "python", packages: []string{"python3", "python3-numpy", "python3-scipy", "libopenblas0-pthread"}, finish: `
			lib=usr/lib/x86_64-linux-gnu
			for l in libblas.so.3 liblapack.so.3 libopenblas.so.0; do ln -sf openblas-pthread/$l $lib/$l; done
			chroot . ldconfig
			chroot . python3 -m compileall -q usr/lib/python3 usr/lib/python3.11 || true`},
		{name: "ruby", packages: []string{"ruby", "ruby-rails"}, finish: "chroot . ldconfig"},
		{name: "git", packages: []string{"git", "perl"}, finish: "chroot . ldconfig"},
		{name: "go", packages: []string{"golang-go"}, finish: "chroot . ldconfig"},
		{name: "nginx", packages: []string{"nginx"}, finish: "chroot . ldconfig; mkdir -p var/log/nginx var/lib/nginx"},
		{name: "files", npm: []string{"typescript@5.4.5", "webpack@5.91.0", "eslint@8.57.0", "express@4.19.2", "react-dom@18.3.1", "lodash@4.17.21"}, files: 150_000},
	}
}

// Workloads names the images that Workload makes.
func Workloads() []string {
	var out []string
	for _, w := range workloads() {
		out = append(out, w.name)
	}
	return out
}

// Workload is the layout of an image, tagged by form: Gzip, Stargz and
// ZstdChunked, the second as stargz-snapshotter's library writes it by itself,
// the third as peel convert does. It is built on first use, from Debian and
// npm packages of the day, which takes the network and root.
func Workload(t testing.TB, name string) string {
	t.Helper()
	all := workloads()
	i := slices.IndexFunc(all, func(w workload) bool { return w.name == name })
	if i < 0 {
		t.Fatalf("no workload is called %q", name)
	}
	below := Kept(t, "workload-base", base().recipe(), func(ctx context.Context, l *Layout) error {
		return base().build(ctx, l, "")
	})
	return Kept(t, "workload-"+name, base().recipe()+all[i].recipe(), func(ctx context.Context, l *Layout) error {
		return all[i].build(ctx, l, below)
	})
}

func (w workload) recipe() string { return fmt.Sprintf("%d %+v", workloadVersion, w) }

// build writes the image over the layers of the layout below, if there is one.
func (w workload) build(ctx context.Context, l *Layout, below string) (err error) {
	tmp, err := os.MkdirTemp(store(), "workload-*.building")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	var trees []string
	if len(w.packages) > 0 {
		dir := filepath.Join(tmp, "packages")
		if err := w.install(ctx, tmp, dir, below); err != nil {
			return err
		}
		trees = append(trees, dir)
	}
	if len(w.npm) > 0 {
		dir := filepath.Join(tmp, "modules")
		if err := nodeModules(ctx, tmp, dir, w.npm); err != nil {
			return err
		}
		trees = append(trees, dir)
	}
	if w.files > 0 {
		dir := filepath.Join(tmp, "files")
		if err := smallFiles(dir, w.files); err != nil {
			return err
		}
		trees = append(trees, dir)
	}
	return writeWorkload(ctx, l, below, trees)
}

// writeWorkload adds a layer of each tree to the image below, in each form.
func writeWorkload(ctx context.Context, l *Layout, below string, trees []string) error {
	forms := []Form{Gzip, Stargz, ZstdChunked}
	layers := map[Form][]Layer{}
	for _, f := range forms {
		if below == "" {
			continue
		}
		of, err := layersOf(below, string(f))
		if err != nil {
			return err
		}
		layers[f] = of
	}
	for _, tree := range trees {
		archive, err := exec.CommandContext(ctx, "tar", "--sort=name", "--format=posix", "--numeric-owner", "--xattrs",
			"--pax-option=delete=atime,delete=ctime", "-C", tree, "-cf", "-", ".").Output()
		if err != nil {
			return fmt.Errorf("tar of %s: %w", tree, err)
		}
		if err := os.RemoveAll(tree); err != nil {
			return err
		}
		for _, f := range forms {
			made, err := workloadLayer(ctx, f, archive)
			if err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			layers[f] = append(layers[f], made)
		}
	}
	for _, f := range forms {
		d, err := l.Image(layers[f]...)
		if err != nil {
			return err
		}
		if err := l.Tag(string(f), d); err != nil {
			return err
		}
	}
	return nil
}

// layersOf reads the layers of an image back from a layout.
func layersOf(layout, tag string) ([]Layer, error) {
	index, err := readIndex(layout)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tag })
	if i < 0 {
		return nil, fmt.Errorf("%s has no tag %s", layout, tag)
	}
	var m ocispec.Manifest
	var config ocispec.Image
	if err := errors.Join(readBlob(layout, index.Manifests[i].Digest, &m), readBlob(layout, m.Config.Digest, &config)); err != nil {
		return nil, err
	}
	var out []Layer
	for n, d := range m.Layers {
		blob, err := os.ReadFile(blobFile(layout, d.Digest))
		if err != nil {
			return nil, err
		}
		out = append(out, Layer{Desc: d, DiffID: config.RootFS.DiffIDs[n], Blob: blob})
	}
	return out, nil
}

func blobFile(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func readBlob(layout string, d digest.Digest, v any) error {
	if err := d.Validate(); err != nil {
		return err
	}
	data, err := os.ReadFile(blobFile(layout, d))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// command runs a program to its end.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var said bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	if err := cmd.Run(); err != nil {
		tail := said.String()
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail[max(0, len(tail)-2000):])
	}
	return nil
}
