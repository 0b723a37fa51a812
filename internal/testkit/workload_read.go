//go:build linux

package testkit

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// readTime bounds reading or unpacking a whole image.
const readTime = 4 * time.Minute

// LayersOf reads the layers of a tag of a layout, bottom first.
func LayersOf(t testing.TB, layout, tag string) []Layer {
	t.Helper()
	layers, err := layersOf(layout, tag)
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

// Extract unpacks a gzip layer into dir. Whiteouts become files.
func Extract(t testing.TB, l Layer, dir string) {
	t.Helper()
	tool(t, bytes.NewReader(l.Blob), "tar", "-C", dir, "-xzpf", "-")
}

// ReadAll reads everything below dir. GNU tar reads no file data when its
// archive is /dev/null, so there is a pipe.
func ReadAll(t testing.TB, dir string) {
	t.Helper()
	tool(t, nil, "sh", "-c", `tar -C "$0" --one-file-system -cf - . | cat >/dev/null`, dir)
}

// Warm has the kernel read the files of programs again, as far as this machine
// has them.
func Warm(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
}

func tool(t testing.TB, stdin *bytes.Reader, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), readTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
