//go:build linux

package testkit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// buildTime bounds the download and the building of an image.
const buildTime = 8 * time.Minute

// Tags of a sample that are not a form.
const (
	Mixed  = "mixed"              // each layer in another form
	Docker = "docker"             // Docker's media types, behind a manifest list
	Skopeo = "zstdchunked-skopeo" // all layers converted by skopeo
)

// A Sample is an image in every form, in one OCI layout, and what each of its
// tags must show.
type Sample struct {
	Name     string
	Layout   string
	Tags     []string
	Expected []Row
}

// Debian returns two images made of Debian packages, of more than 5000 files
// each. They are built on first use, which takes the network (for apt-get)
// and root (for umoci).
func Debian(t testing.TB) []Sample {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	defer cancel()
	var out []Sample
	for _, r := range recipes() {
		s, err := r.sample(ctx)
		if err != nil {
			t.Fatalf("image %s of Debian packages: %v", r.name, err)
		}
		out = append(out, s)
	}
	return out
}

// store is where samples are kept between runs.
func store() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "peel-testkit")
}

func (r recipe) key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %v %v", recipeVersion, r, Forms()))
	return fmt.Sprintf("%s-%x", r.name, sum[:6])
}

// sample builds the image unless this machine has it.
func (r recipe) sample(ctx context.Context) (Sample, error) {
	dir := filepath.Join(store(), r.key())
	s := Sample{Name: r.name, Layout: filepath.Join(dir, "layout")}
	err := locked(dir, func() (err error) {
		if _, err := os.Stat(dir); err != nil {
			if err := r.build(ctx, dir); err != nil {
				return err
			}
		}
		if s.Tags, err = tags(s.Layout); err != nil {
			return err
		}
		s.Expected, err = ReadListing(filepath.Join(dir, "expected.jsonl"))
		return err
	})
	return s, err
}

// locked calls do while no other process does so for the same path, which lies
// in the store.
func locked(path string, do func() error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return do()
}

// build makes the sample in a folder of its own and moves it to dir when whole.
func (r recipe) build(ctx context.Context, dir string) error {
	tmp := dir + ".building" // may be there still from a run that was killed
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return err
	}
	layers, err := r.entries(ctx)
	if err == nil {
		err = writeLayout(ctx, filepath.Join(tmp, "layout"), layers)
	}
	if err == nil {
		err = writeExpected(ctx, tmp, layers)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return nil
}

func (r recipe) entries(ctx context.Context) ([][]Entry, error) {
	view := map[string]byte{}
	var layers [][]Entry
	for n, names := range r.layers {
		files, err := debs(ctx, filepath.Join(store(), "debs"), names)
		if err != nil {
			return nil, err
		}
		layer, err := unpackDebs(ctx, files)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			layer = edit(n, view, layer)
		}
		apply(view, layer)
		layers = append(layers, layer)
	}
	return layers, nil
}

func writeLayout(ctx context.Context, dir string, layers [][]Entry) error {
	l, err := NewLayout(dir)
	if err != nil {
		return err
	}
	built, err := encodeAll(layers)
	if err != nil {
		return err
	}
	if err := writeForms(l, built); err != nil {
		return err
	}
	return writeSkopeo(ctx, l)
}

// writeForms writes the image in every form, in a mixture of forms, with
// Docker's media types, and behind an index with a decoy of another platform.
func writeForms(l *Layout, built map[Form][]Layer) error {
	for _, f := range Forms() {
		d, err := l.Image(built[f]...)
		if err != nil {
			return err
		}
		if err := l.Tag(string(f), d); err != nil {
			return err
		}
	}
	mixed, err := l.Image(built[Stargz][0], built[Zstd][1], built[ZstdChunked][2])
	if err != nil {
		return err
	}
	docker, err := l.DockerImage(built[Gzip]...)
	if err != nil {
		return err
	}
	decoy, err := l.Image(built[Gzip][0])
	if err != nil {
		return err
	}
	docker.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	decoy.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	index, err := l.Index(dockerManifestList, decoy, docker)
	if err != nil {
		return err
	}
	return errors.Join(l.Tag(Mixed, mixed), l.Tag(Docker, index))
}

func encodeAll(layers [][]Entry) (map[Form][]Layer, error) {
	var g errgroup.Group
	g.SetLimit(4)
	built := map[Form][]Layer{}
	for _, f := range Forms() {
		built[f] = make([]Layer, len(layers))
	}
	for n, entries := range layers {
		archive, err := Tar(entries...)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		for _, f := range Forms() {
			g.Go(func() error {
				l, err := f.Encode(archive)
				if err != nil {
					return fmt.Errorf("layer %d as %s: %w", n, f, err)
				}
				built[f][n] = l
				return nil
			})
		}
	}
	return built, g.Wait()
}

// writeSkopeo adds the image as Debian's skopeo writes zstd:chunked: the keys
// of the early dialect on a layout of its own. Skopeo keeps the layers that it
// finds at its destination as they are, so it writes to an empty one.
func writeSkopeo(ctx context.Context, l *Layout) (err error) {
	tmp := l.Dir + ".skopeo"
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	cmd := exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-compress-format", "zstd:chunked",
		"oci:"+l.Dir+":"+string(Gzip), "oci:"+tmp+":"+Skopeo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("skopeo: %w: %s", err, out)
	}
	blobs, err := filepath.Glob(filepath.Join(tmp, "blobs", "sha256", "*"))
	if err != nil {
		return err
	}
	for _, blob := range blobs {
		if err := os.Rename(blob, filepath.Join(l.Dir, "blobs", "sha256", filepath.Base(blob))); err != nil {
			return err
		}
	}
	written, err := readIndex(tmp)
	if err != nil {
		return err
	}
	return l.Tag(Skopeo, written.Manifests[0])
}

// writeExpected asks umoci what the image unpacks to.
func writeExpected(ctx context.Context, dir string, layers [][]Entry) (err error) {
	root := filepath.Join(dir, "rootfs")
	cmd := exec.CommandContext(ctx, "umoci", "raw", "unpack", "--image", filepath.Join(dir, "layout")+":"+string(Gzip), root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("umoci: %w: %s", err, out)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	rows, err := List(root)
	if err != nil {
		return err
	}
	unsettled := undescribed(layers)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, r := range rows {
		if _, found := slices.BinarySearch(unsettled, r.Path); found && r.Type == "dir" {
			r.MtimeNs = nil
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "expected.jsonl"), b.Bytes(), 0o644)
}

func readIndex(layout string) (ocispec.Index, error) {
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		return index, err
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return index, err
	}
	if len(index.Manifests) == 0 {
		return index, fmt.Errorf("%s: no image", layout)
	}
	return index, nil
}

func tags(layout string) ([]string, error) {
	index, err := readIndex(layout)
	var out []string
	for _, m := range index.Manifests {
		out = append(out, m.Annotations[ocispec.AnnotationRefName])
	}
	return out, err
}
