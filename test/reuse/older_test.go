//go:build linux

package reuse

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestOlderIndexes: indexes that another version of peel has left in the cache
// are made anew, and nobody notices.
func TestOlderIndexes(t *testing.T) {
	t.Parallel()
	app := testkit.Packages(t, "libexpat1", "zlib1g")
	for _, form := range []testkit.Form{testkit.Stargz, testkit.Gzip} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			publish(t, reg, "v1", testkit.Encode(t, form, app...))
			publish(t, reg, "v2", testkit.Encode(t, form, append(app, testkit.File("new", []byte("new")))...))
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			pass(t, p, proxy, proxy.Ref("re/use", "v1"), app)
			indexes, err := filepath.Glob(filepath.Join(p.Cache, "index", "sha256", "*"))
			if err != nil || len(indexes) == 0 {
				t.Fatalf("indexes %v, %v", indexes, err)
			}
			for _, name := range indexes {
				file, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				file[8]-- // the version, after the magic number
				if err := os.WriteFile(name, file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pass(t, p, proxy, proxy.Ref("re/use", "v2"), app)
			pass(t, p, proxy, proxy.Ref("re/use", "v1"), app)
		})
	}
}
