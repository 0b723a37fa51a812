//go:build linux

package reuse

import (
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestUpgrade: a layer of five packages is built again with one of them newer.
// Reading all of the new image fetches the changed files and the table of
// contents.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	base, app := testkit.Packages(t, "base-files", "tzdata"), packages(t)
	for _, c := range []struct {
		name    string
		belongs func(name string) bool
	}{
		{"a package", func(name string) bool {
			return strings.Contains(name, "expat") || strings.Contains(name, "usr/share/perl/5.36.0/CPAN")
		}},
		{"a file", func(name string) bool {
			return strings.HasSuffix(name, "python3.11/argparse.py") || strings.HasSuffix(name, "python3.11/tarfile.py")
		}},
	} {
		next, changed := newer(app, c.belongs)
		if len(changed) == 0 {
			t.Fatalf("%s: nothing changed", c.name)
		}
		for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked} {
			t.Run(c.name+" "+string(form), func(t *testing.T) {
				t.Parallel()
				below, above := testkit.Encode(t, form, base...), testkit.Encode(t, form, next...)
				reg := testkit.NewRegistry(t)
				publish(t, reg, "v1", below, testkit.Encode(t, form, app...))
				publish(t, reg, "v2", below, above)
				proxy := testkit.NewProxy(t, reg.Host())
				p := testkit.NewPeel(t)
				first := pass(t, p, proxy, proxy.Ref("re/use", "v1"), base, app)
				second := pass(t, p, proxy, proxy.Ref("re/use", "v2"), base, next)
				least := compressed(t, above, changed)
				t.Logf("%d files changed, %d bytes compressed, of a layer of %d; first %+v, then %+v", len(changed), least, above.Desc.Size, first, second)
				if second.data > least*12/10 {
					t.Errorf("%d bytes fetched for %d of changed files", second.data, least)
				}
				if second.reused < (above.Desc.Size-least-second.tables)*8/10 {
					t.Errorf("peel ps tells of %d bytes reused, of a layer of %d", second.reused, above.Desc.Size)
				}
			})
		}
	}
}

// TestAcrossForms: an image that was read in one form is mounted in another.
func TestAcrossForms(t *testing.T) {
	t.Parallel()
	app := packages(t)
	for _, c := range []struct{ from, to testkit.Form }{
		{testkit.Gzip, testkit.Stargz}, {testkit.Gzip, testkit.ZstdChunked}, {testkit.Stargz, testkit.ZstdChunked}, {testkit.ZstdChunked, testkit.Stargz},
	} {
		t.Run(string(c.from)+" to "+string(c.to), func(t *testing.T) {
			t.Parallel()
			above := testkit.Encode(t, c.to, app...)
			reg := testkit.NewRegistry(t)
			publish(t, reg, "v1", testkit.Encode(t, c.from, app...))
			publish(t, reg, "v2", above)
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			pass(t, p, proxy, proxy.Ref("re/use", "v1"), app)
			got := pass(t, p, proxy, proxy.Ref("re/use", "v2"), app)
			t.Logf("a layer of %d bytes: %+v", above.Desc.Size, got)
			if got.data > above.Desc.Size/50 {
				t.Errorf("%d bytes fetched of a layer of %d", got.data, above.Desc.Size)
			}
		})
	}
}

// TestRemovedDonor: what was reused stays when the layer that gave it goes, and
// nothing keeps that from going.
func TestRemovedDonor(t *testing.T) {
	t.Parallel()
	app := testkit.Packages(t, "libexpat1", "ncurses-term", "zlib1g")
	next, _ := newer(app, func(name string) bool { return strings.Contains(name, "expat") })
	reg := testkit.NewRegistry(t)
	publish(t, reg, "v1", testkit.Encode(t, testkit.Stargz, app...))
	publish(t, reg, "v2", testkit.Encode(t, testkit.Stargz, next...))
	p := testkit.NewPeel(t)
	p.Umount(func() string {
		root := p.Mount(reg.Ref("re/use", "v1"))
		readAll(t, root, app)
		return root
	}())
	root := p.Mount(reg.Ref("re/use", "v2"))
	readAll(t, root, next)
	p.Must("images", "rm", reg.Ref("re/use", "v1"))
	readAll(t, root, next)
	p.Umount(root)
	root = p.Mount(reg.Ref("re/use", "v2"))
	reg.Stop()
	readAll(t, root, next)
}

// TestIndexedGzip measures what layers without a table of contents reuse: runs
// of the tar before the first change, and what long files have for themselves.
func TestIndexedGzip(t *testing.T) {
	t.Parallel()
	app := append(packages(t), testkit.File("opt/long", testkit.Noise(7, 10<<20)))
	next, changed := newer(app, func(name string) bool { return strings.Contains(name, "expat") })
	above := deflated(t, next)
	reg := testkit.NewRegistry(t)
	publish(t, reg, "v1", deflated(t, app))
	publish(t, reg, "v2", above)
	for _, tag := range []string{"v1", "v2"} {
		testkit.NewPeel(t).Must("index", "push", reg.Ref("re/use", tag))
	}
	proxy := testkit.NewProxy(t, reg.Host())
	p := testkit.NewPeel(t)
	pass(t, p, proxy, proxy.Ref("re/use", "v1"), app)
	got := pass(t, p, proxy, proxy.Ref("re/use", "v2"), next)
	t.Logf("%d files changed of a layer of %d bytes: %+v", len(changed), above.Desc.Size, got)
	if got.data >= above.Desc.Size*2/3 || got.reused == 0 {
		t.Errorf("%d bytes fetched of a layer of %d, %d reused", got.data, above.Desc.Size, got.reused)
	}
}
