//go:build linux

package plain

import (
	"math/rand/v2"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestEvicted takes every span away under a mount: what is read comes back by
// ranges, and only that.
func TestEvicted(t *testing.T) {
	t.Parallel()
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			const n, wanted = 80, 4
			entries := files(0, n)
			l := f.encode(t, entries)
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "plain/evicted", "v1", l)
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			root := p.Mount(proxy.Ref("plain/evicted", "v1"))
			sameAll(t, root, entries)
			proxy.Log()

			span := gone(t, p, root)
			order := rand.New(rand.NewPCG(3, 4)).Perm(n)
			var touched int64
			for _, i := range order[:wanted] {
				if err := same(root, entries[i]); err != nil {
					t.Error(err)
				}
				touched += (fileSize+span-2)/span + 1
			}
			log := proxy.Log()
			got, ratio := testkit.Bytes(log), float64(l.Desc.Size)/float64(n*fileSize)
			most := int64(1.3*ratio*float64(touched*span) + ratio*float64(span))
			t.Logf("spans of %d bytes; %d requests, %d bytes for %d files that touch %d spans at most (of a blob of %d)",
				span, len(log), got, wanted, touched, l.Desc.Size)
			if got > most || got < wanted*int64(ratio*fileSize) {
				t.Errorf("%d bytes fetched, at most %d", got, most)
			}
			for _, r := range log {
				if r.Range == "" {
					t.Errorf("%s %s without a range", r.Method, r.Path)
				}
			}
			gone(t, p, root)
			readAtOnce(t, root, entries)
		})
	}
}
