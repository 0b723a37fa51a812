//go:build linux

package fill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	layers   = 2
	fileSize = 500_000
	// patience is how long a fill may take on a machine that is busy.
	patience = 60 * time.Second
)

// forms are those that are read lazily, each by another kind of claim.
func forms() []testkit.Form {
	return []testkit.Form{testkit.Stargz, testkit.ZstdChunked, testkit.Gzip}
}

// content is a file's: compressed to half, in blocks that refer to the ones
// before.
func content(layer, i int) []byte {
	b := testkit.Noise(uint64(1000*layer+i), fileSize)
	for k := range b {
		b[k] = "0123456789abcdef"[b[k]&15]
	}
	return b
}

func name(layer, i int) string { return fmt.Sprintf("layer-%d/%d", layer, i) }

// fixture is an image in a registry, and the way to it.
type fixture struct {
	reg    *testkit.Registry
	line   *testkit.Line
	p      *testkit.Peel
	ref    string
	files  int   // of each layer
	size   int64 // bytes of all blobs
	layers []testkit.Layer
}

// prepare pushes an image of two layers with so many files each, at the far
// end of a line. If the form has no table of contents, it has an index.
func prepare(t *testing.T, f testkit.Form, files int, l testkit.Link) *fixture {
	t.Helper()
	x := &fixture{reg: testkit.NewRegistry(t), p: testkit.NewPeel(t), files: files}
	for n := range layers {
		var entries []testkit.Entry
		for i := range files {
			entries = append(entries, testkit.File(name(n, i), content(n, i)))
		}
		one := testkit.Encode(t, f, entries...)
		x.layers = append(x.layers, one)
		x.size += one.Desc.Size
	}
	x.reg.Publish(t, "fi/ll", "v1", x.layers...)
	if !f.Indexed() {
		testkit.NewPeel(t).Must("index", "push", x.reg.Ref("fi/ll", "v1"))
	}
	x.line = x.reg.Behind(t, l)
	x.ref = x.line.Host() + "/fi/ll:v1"
	return x
}

// sent is how many bytes went over the line.
func (x *fixture) sent() int64 {
	_, n := x.line.Count()
	return n
}

type inspected struct {
	Layers []struct {
		Trust        string `json:"trust"`
		Access       string `json:"access"`
		BytesTotal   int64  `json:"bytes_total"`
		BytesPresent int64  `json:"bytes_present"`
	} `json:"layers"`
}

func (x *fixture) inspect(t *testing.T) inspected {
	t.Helper()
	var in inspected
	out := x.p.Must("inspect", "--json", "--pull=never", x.ref).Stdout
	if err := json.Unmarshal([]byte(out), &in); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return in
}

// whole reports whether all of the image is here and proved.
func (in inspected) whole() bool {
	for _, l := range in.Layers {
		if l.Access != "lazy" || l.Trust != "proved" || l.BytesPresent < l.BytesTotal {
			return false
		}
	}
	return len(in.Layers) == layers
}

// filled waits until the image is whole.
func (x *fixture) filled(t *testing.T) {
	t.Helper()
	if !x.p.Until(patience, func() bool { return x.inspect(t).whole() }) {
		t.Fatalf("not whole after %s: %+v; %d bytes sent for blobs of %d", patience, x.inspect(t), x.sent(), x.size)
	}
	if left, err := filepath.Glob(filepath.Join(x.p.Cache, "fill", "*")); err != nil || len(left) > 0 {
		x.p.Until(5*time.Second, func() bool {
			left, err = filepath.Glob(filepath.Join(x.p.Cache, "fill", "*"))
			return len(left) == 0
		})
		if len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	}
}

// readAll checks every file below root.
func (x *fixture) readAll(t *testing.T, root string) {
	t.Helper()
	for n := range layers {
		for i := range x.files {
			got, err := os.ReadFile(filepath.Join(root, name(n, i)))
			if err != nil || !bytes.Equal(got, content(n, i)) {
				t.Fatalf("%s: %d bytes, %v", name(n, i), len(got), err)
			}
		}
	}
}

// kill ends the server of a mount as a crash does, and takes the mount away.
func (x *fixture) kill(t *testing.T, root string) {
	t.Helper()
	if err := unix.Kill(x.p.ServerPID(root), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	x.p.Umount(root)
}
