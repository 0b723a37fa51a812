//go:build linux

package badinput

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestMountWithoutRoomForItsRecord: the image is all there, and so is the
// reason why it cannot be mounted.
func TestMountWithoutRoomForItsRecord(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "bad/room", "v1", testkit.Encode(t, testkit.Stargz, testkit.File("f", []byte("good"))))
	p := tmpfs(t, "size=1m", 0)
	ref := reg.Ref("bad/room", "v1")
	p.Must("cat", ref+":/f")
	rest := filepath.Join(p.Cache, "rest")
	if err := os.WriteFile(rest, testkit.Noise(1, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if got := p.Must("cat", ref+":/f").Stdout; got != "good" {
		t.Errorf("reading without mounting gives %q", got)
	}
	dir := p.Dir()
	r := p.Run("mount", ref, dir)
	expect(t, p, r, testkit.Failed, p.Cache)
	if !strings.Contains(r.Stderr, "--cache") {
		t.Errorf("no remedy:\n%s", r.Stderr)
	}
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	p.Must("mount", ref, dir)
	p.Umount(dir)
}
