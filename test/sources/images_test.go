//go:build linux

package sources

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// known is an image as "peel images --json" lists it.
type known struct {
	Name    string `json:"name"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"` // of the layers, compressed
	Present int64  `json:"present"`
	Total   int64  `json:"total"` // what may be present: bytes of the layers, uncompressed
}

func images(t *testing.T, p *testkit.Peel) map[string]known {
	t.Helper()
	var list []known
	out := p.Must("images", "--json").Stdout
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("peel images --json: %v\n%s", err, out)
	}
	all := map[string]known{}
	for _, k := range list {
		all[k.Name] = k
	}
	return all
}

// TestImages: what was pulled is listed, by every later process, until it is
// removed; what was removed is gone.
func TestImages(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	d := reg.Publish(t, "ima/ges", "v1", small(t), testkit.Encode(t, testkit.Gzip, testkit.File("more", testkit.Noise(6, 300_000))))
	ref := reg.Ref("ima/ges", "v1")
	p := testkit.NewPeel(t)
	if all := images(t, p); len(all) != 0 {
		t.Errorf("an empty cache has %v", all)
	}
	p.Must("pull", ref)
	k, ok := images(t, p)[ref]
	if !ok || k.Digest != d.Digest.String() || k.Size == 0 || k.Total == 0 || k.Present != k.Total {
		t.Fatalf("after a pull: %+v of %v", k, images(t, p))
	}
	if out := p.Must("images").Stdout; !strings.Contains(out, "ima/ges") {
		t.Errorf("peel images:\n%s", out)
	}
	reg.Stop()
	root := p.Mount(ref)
	if got, err := os.ReadFile(filepath.Join(root, "more")); err != nil || string(got) != string(testkit.Noise(6, 300_000)) {
		t.Errorf("without the registry: %d bytes, %v", len(got), err)
	}
	p.Umount(root)
	p.Must("images", "rm", ref)
	if all := images(t, p); len(all) != 0 {
		t.Errorf("after rm: %v", all)
	}
	if r := p.Run("images", "rm", ref); r.Code != testkit.NotFound {
		t.Errorf("rm of what is not there: exit code %d\n%s", r.Code, r.Stderr)
	}
}

// TestImport pulls an archive, which is then no longer needed.
func TestImport(t *testing.T) {
	t.Parallel()
	saved := save(t, filepath.Join(t.TempDir(), "saved.tar"), "a/b:v1", small(t))
	ref := "docker-archive:" + saved
	p := testkit.NewPeel(t)
	p.Must("pull", ref)
	all := images(t, p)
	if len(all) != 1 {
		t.Errorf("after a pull: %v", all)
	}
	for name := range all {
		p.Must("images", "rm", name)
	}
	if all := images(t, p); len(all) != 0 {
		t.Errorf("after rm: %v", all)
	}
}
