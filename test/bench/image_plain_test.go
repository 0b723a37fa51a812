//go:build linux

package bench

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/internal/testkit"
)

// plainLeast is how large the image of the first mount is at least, compressed
// bytes.
const plainLeast = 250_000_000

// plainPackages are what a large image consists of, a list a layer: compilers,
// a run-time environment, and sources of many small files.
func plainPackages() [][]string {
	return [][]string{
		{"base-files", "libc6", "perl-base", "coreutils", "gcc-12", "cpp-12", "libllvm14"},
		{"openjdk-17-jre-headless", "python3.11-minimal", "libpython3.11-stdlib"},
		{"golang-1.19-go"},
		{"golang-1.19-src", "texlive-latex-extra"},
	}
}

// plainImage is a layout of the packages in gzip layers, as docker build
// writes them.
func plainImage(b *testing.B) string {
	b.Helper()
	packages := plainPackages()
	var debs [][]string
	for _, names := range packages {
		debs = append(debs, testkit.Debs(b, names...))
	}
	return testkit.Kept(b, "plain", fmt.Sprint("gzip 1 ", packages), func(ctx context.Context, l *testkit.Layout) error {
		layers := make([]testkit.Layer, len(packages))
		var g errgroup.Group
		for i := range packages {
			g.Go(func() (err error) {
				layers[i], err = gzipLayer(ctx, b.TempDir(), debs[i])
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		d, err := l.Image(layers...)
		if err != nil {
			return err
		}
		return l.Tag("latest", d)
	})
}

func gzipLayer(ctx context.Context, dir string, debs []string) (testkit.Layer, error) {
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
			return testkit.Layer{}, fmt.Errorf("dpkg-deb %s: %w: %s", deb, err, out)
		}
	}
	archive, err := exec.CommandContext(ctx, "tar", "--sort=name", "--numeric-owner", "-C", dir, "-cf", "-", ".").Output()
	if err != nil {
		return testkit.Layer{}, fmt.Errorf("tar: %w", err)
	}
	var blob bytes.Buffer
	w := gzip.NewWriter(&blob)
	if _, err := w.Write(archive); err != nil {
		return testkit.Layer{}, err
	}
	if err := w.Close(); err != nil {
		return testkit.Layer{}, err
	}
	return testkit.Layer{
		Desc: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len()),
		},
		DiffID: digest.FromBytes(archive),
		Blob:   blob.Bytes(),
	}, nil
}

// blobsOf are the files of a layout's image: the two documents and the layers.
func blobsOf(b *testing.B, layout string) (digests []digest.Digest, size int64) {
	b.Helper()
	files, err := os.ReadDir(filepath.Join(layout, "blobs", "sha256"))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		fi, err := f.Info()
		if err != nil {
			b.Fatal(err)
		}
		if fi.Size() > 1<<20 {
			digests = append(digests, digest.NewDigestFromEncoded(digest.SHA256, f.Name()))
			size += fi.Size()
		}
	}
	return digests, size
}
