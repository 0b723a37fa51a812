//go:build linux

package pull

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

// TestAtOnce: two pulls of two images each, and a mount that is read, all of
// which have layers in common, at once.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	base := newPart(t, "base", testkit.Gzip, 12)
	lazy := newPart(t, "lazy", testkit.Stargz, 12)
	one, two, three := newPart(t, "one", testkit.Gzip, 4), newPart(t, "two", testkit.Zstd, 4), newPart(t, "three", testkit.ZstdChunked, 4)
	images := []image{
		newImage("at/a", base, lazy, one), newImage("at/b", base, two),
		newImage("at/c", base, lazy, three), newImage("at/d", two, lazy),
		newImage("at/e", base, lazy, two, three),
	}
	reg := testkit.NewRegistry(t)
	proxy := testkit.NewProxy(t, reg.Host())
	var refs []string
	for _, m := range images {
		reg.Publish(t, m.repo, "v1", m.layers...)
		refs = append(refs, proxy.Ref(m.repo, "v1"))
	}
	proxy.SetLink(testkit.Link{Delay: 10 * time.Millisecond, BytesPerSecond: 8_000_000})
	p := testkit.NewPeel(t)
	root := p.Dir()
	var all sync.WaitGroup
	for _, args := range [][]string{{"pull", refs[0], refs[1]}, {"pull", "--quiet", refs[2], refs[3]}, {"mount", refs[4], root}} {
		all.Go(func() {
			if r := p.Run(args...); r.Code != testkit.OK {
				t.Errorf("%v: exit code %d\n%s", args, r.Code, r.Stderr)
			}
			if args[0] == "mount" {
				images[4].same(t, root)
			}
		})
	}
	all.Wait()
	proxy.Heal()
	got := served(proxy.Log())
	for _, x := range []part{base, lazy, one, two, three} {
		d := x.layer.Desc
		t.Logf("%s: %d of %d bytes", d.Digest.Encoded()[:12], got[d.Digest], d.Size)
		// Of a layer with a table of contents, what is between spans is not
		// needed, and its end may be read twice: once in search of the table.
		if n := got[d.Digest]; n < d.Size*9/10 || n > d.Size+d.Size/100+64<<10 {
			t.Errorf("%d bytes of a layer of %d", n, d.Size)
		}
	}
	reg.Stop()
	for i, m := range images[:4] {
		dir := p.Mount(refs[i], "--pull", "never")
		m.same(t, dir)
	}
	if log := proxy.Log(); len(log) > 0 {
		t.Errorf("%d requests by mounts of pulled images, the first: %+v", len(log), log[0])
	}
}

// TestInterrupted: what a pull has transferred when it is interrupted, or
// killed, the next one need not.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		sig  unix.Signal
		form testkit.Form
	}{
		{"interrupted/gzip", unix.SIGINT, testkit.Gzip},
		{"interrupted/tar", unix.SIGTERM, testkit.PlainTar},
		{"interrupted/esgz", unix.SIGINT, testkit.Stargz},
		{"killed/gzip", unix.SIGKILL, testkit.Gzip},
		{"killed/zstdchunked", unix.SIGKILL, testkit.ZstdChunked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newImage("inter/rupted", newPart(t, "big", tc.form, 60))
			reg := testkit.NewRegistry(t)
			reg.Publish(t, m.repo, "v1", m.layers...)
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.SetLink(testkit.Link{BytesPerSecond: 6_000_000})
			p := testkit.NewPeel(t)
			ref := proxy.Ref(m.repo, "v1")
			code := stopAt(t, p, ref, m.size()/2, tc.sig)
			if tc.sig != unix.SIGKILL && code != testkit.Interrupted {
				t.Errorf("exit code %d", code)
			}
			first := testkit.Bytes(proxy.Log())
			proxy.SetLink(testkit.Link{})
			last, _ := pulled(t, p, ref)
			second := testkit.Bytes(proxy.Log())
			t.Logf("%d and %d bytes of %d", first, second, m.size())
			if !last[ref].New || first+second > m.size()*115/100+50_000 || first > m.size()*9/10 {
				t.Errorf("%+v: %d and %d bytes of %d", last[ref], first, second, m.size())
			}
			reg.Stop()
			m.same(t, p.Mount(ref))
		})
	}
}

// stopAt pulls ref and sends sig when so many bytes are here.
func stopAt(t *testing.T, p *testkit.Peel, ref string, done int64, sig unix.Signal) (code int) {
	t.Helper()
	cmd := p.Command(t.Context(), "pull", "--json", ref)
	follow(t, cmd, func(e event) bool {
		if e.Done < done {
			return false
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
		return true
	})
	return cmd.ProcessState.ExitCode()
}

// follow runs peel pull --json and has look see what it says of layers, until
// that returns true.
func follow(t *testing.T, cmd *exec.Cmd, look func(event) bool) {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Error(err)
		}
		if !over && e.Layer != "" {
			over = look(e)
		}
	}
	if !over {
		t.Error("pulled before anything could happen")
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
}

// TestRegistryGone: a registry that is gone for longer than a request waits
// only delays a pull, which goes on where it was.
func TestRegistryGone(t *testing.T) {
	t.Parallel()
	for _, form := range []testkit.Form{testkit.Gzip, testkit.Stargz} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			m := newImage("registry/gone", newPart(t, "big", form, 40))
			reg := testkit.NewRegistry(t)
			reg.Publish(t, m.repo, "v1", m.layers...)
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.SetLink(testkit.Link{BytesPerSecond: 8_000_000})
			p := testkit.NewPeel(t)
			back := make(chan struct{})
			cmd := p.Command(t.Context(), "pull", "--json", "--timeout", "1s", proxy.Ref(m.repo, "v1"))
			follow(t, cmd, func(e event) bool {
				if e.Done < m.size()/2 {
					return false
				}
				proxy.Stop()
				time.AfterFunc(4*time.Second, func() { proxy.Start(); close(back) })
				return true
			})
			<-back
			if code := cmd.ProcessState.ExitCode(); code != testkit.OK {
				t.Errorf("exit code %d", code)
			}
			if n := testkit.Bytes(proxy.Log()); n > m.size()*12/10+100_000 {
				t.Errorf("%d bytes of %d", n, m.size())
			}
			proxy.Stop()
			m.same(t, p.Mount(proxy.Ref(m.repo, "v1")))
		})
	}
}

// TestStorm: whatever goes wrong on the way, in the end everything is here.
func TestStorm(t *testing.T) {
	t.Parallel()
	var parts []part
	for i, f := range []testkit.Form{testkit.Gzip, testkit.Stargz, testkit.Zstd, testkit.ZstdChunked, testkit.Gzip, testkit.PlainTar} {
		parts = append(parts, newPart(t, "layer-"+strconv.Itoa(i), f, 10))
	}
	m := newImage("in/a-storm", parts...)
	reg := testkit.NewRegistry(t)
	reg.Publish(t, m.repo, "v1", m.layers...)
	proxy := testkit.NewProxy(t, reg.Host())
	storm := proxy.Storm(testkit.Everything(7, 0.1))
	p := testkit.NewPeel(t)
	ref := proxy.Ref(m.repo, "v1")
	if last, _ := pulled(t, p, ref); !last[ref].New {
		t.Errorf("%+v", last[ref])
	}
	t.Log(storm)
	reg.Stop()
	m.same(t, p.Mount(ref, "--pull", "never"))
}

// TestOneGivesUp: of two processes that want the same image, the one that
// transfers it is killed.
func TestOneGivesUp(t *testing.T) {
	t.Parallel()
	m := newImage("one/gives-up", newPart(t, "big", testkit.Gzip, 60))
	reg := testkit.NewRegistry(t)
	reg.Publish(t, m.repo, "v1", m.layers...)
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.SetLink(testkit.Link{BytesPerSecond: 8_000_000})
	p := testkit.NewPeel(t)
	ref := proxy.Ref(m.repo, "v1")
	var other sync.WaitGroup
	cmd := p.Command(t.Context(), "pull", "--json", ref)
	started := false
	follow(t, cmd, func(e event) bool {
		if !started && e.Done > 0 {
			started = true
			other.Go(func() {
				if r := p.Run("pull", ref); r.Code != testkit.OK {
					t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
				}
			})
		}
		if e.Done < m.size()/2 {
			return false
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		return true
	})
	other.Wait()
	n := testkit.Bytes(proxy.Log())
	t.Logf("%d bytes of %d", n, m.size())
	if n > m.size()*115/100+50_000 {
		t.Errorf("%d bytes of %d", n, m.size())
	}
}

// TestUpToDate: the second pull asks for the manifest alone, and says so; a
// tag that has moved is new, and so is what was evicted.
func TestUpToDate(t *testing.T) {
	t.Parallel()
	base := newPart(t, "base", testkit.Gzip, 5)
	m := newImage("up/date", base, newPart(t, "lazy", testkit.Stargz, 5))
	reg := testkit.NewRegistry(t)
	d := reg.Publish(t, m.repo, "v1", m.layers...)
	proxy := testkit.NewProxy(t, reg.Host())
	p := testkit.NewPeel(t)
	ref := proxy.Ref(m.repo, "v1")

	r := p.Must("pull", ref)
	for _, want := range []string{"Digest: " + d.Digest.String(), "Status: Downloaded newer image for " + ref, ": complete\n"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("no %q in\n%s", want, r.Stdout)
		}
	}
	proxy.Log()
	r = p.Must("pull", ref)
	for _, want := range []string{"Status: Image is up to date for " + ref, ": already exists\n"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("no %q in\n%s", want, r.Stdout)
		}
	}
	for got := range served(proxy.Log()) {
		t.Errorf("blob %s was asked for again", got)
	}
	last, states := pulled(t, p, ref)
	if e := last[ref]; e.New || e.Fetched != 0 || e.Digest != d.Digest || e.State != "pulled" || e.Done != e.Total {
		t.Errorf("%+v", e)
	}
	for _, l := range m.layers {
		if s := states[l.Desc.Digest]; !slices.Contains(s, "already exists") || slices.Contains(s, "downloading") {
			t.Errorf("states %v", s)
		}
	}

	moved := newImage(m.repo, base, newPart(t, "other", testkit.Gzip, 3))
	reg.Publish(t, m.repo, "v1", moved.layers...)
	last, states = pulled(t, p, ref)
	if e := last[ref]; !e.New || e.Fetched < moved.layers[1].Desc.Size || e.Fetched > moved.layers[1].Desc.Size+1000 {
		t.Errorf("%+v", e)
	}
	if s := states[moved.layers[1].Desc.Digest]; !slices.Contains(s, "complete") {
		t.Errorf("states %v", s)
	}
	reg.Publish(t, m.repo, "v1", m.layers...)
	if last, _ = pulled(t, p, ref); !last[ref].New || last[ref].Fetched != 0 {
		t.Errorf("a tag that moved to what is here: %+v", last[ref])
	}

	p.Evict()
	if last, _ = pulled(t, p, ref); !last[ref].New || last[ref].Fetched < m.size()*9/10 {
		t.Errorf("what was evicted: %+v", last[ref])
	}
	if r := p.Must("pull", "--quiet", ref); r.Stdout != ref+"\n" || r.Stderr != "" {
		t.Errorf("%q, %q", r.Stdout, r.Stderr)
	}
}

func TestAllTags(t *testing.T) {
	t.Parallel()
	base := newPart(t, "base", testkit.Gzip, 5)
	reg := testkit.NewRegistry(t)
	proxy := testkit.NewProxy(t, reg.Host())
	var refs []string
	images := map[string]image{}
	for _, tag := range []string{"v1", "v2", "v3", "v4", "v5"} {
		m := newImage("all/tags", base, newPart(t, tag, testkit.Gzip, 1))
		reg.Publish(t, m.repo, tag, m.layers...)
		images[proxy.Ref(m.repo, tag)] = m
		refs = append(refs, proxy.Ref(m.repo, tag))
	}
	p := testkit.NewPeel(t)
	proxy.Log()
	last, _ := pulled(t, p, "--all-tags", proxy.Host()+"/all/tags")
	for _, ref := range refs {
		if e := last[ref]; e.State != "pulled" || !e.New {
			t.Errorf("%s: %+v", ref, e)
		}
	}
	for d, n := range served(proxy.Log()) {
		if d == base.layer.Desc.Digest && n > base.layer.Desc.Size {
			t.Errorf("%d bytes of the common layer of %d", n, base.layer.Desc.Size)
		}
	}
	if r := p.Run("pull", "--all-tags", refs[0]); r.Code != testkit.Usage {
		t.Errorf("--all-tags of a tag: %d\n%s", r.Code, r.Stderr)
	}
	reg.Stop()
	for ref, m := range images {
		m.same(t, p.Mount(ref))
	}
}

// TestDamaged: bytes that are damaged on their way are fetched again; if they
// stay so, the pull fails, says so, and keeps none of them.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for _, form := range []testkit.Form{testkit.Gzip, testkit.Stargz} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			m := newImage("dam/aged", newPart(t, "big", form, 20))
			reg := testkit.NewRegistry(t)
			reg.Publish(t, m.repo, "v1", m.layers...)
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			ref := proxy.Ref(m.repo, "v1")
			file := reg.BlobFile(m.layers[0].Desc)
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			bad := slices.Clone(good)
			bad[len(bad)/3] ^= 1
			if err := os.WriteFile(file, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if r := p.Run("pull", ref); r.Code != testkit.Unverified {
				t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
			}
			if err := os.WriteFile(file, good, 0o644); err != nil {
				t.Fatal(err)
			}
			proxy.Inject(testkit.Fault{Path: m.layers[0].Desc.Digest.String(), Times: 1, Do: testkit.Corrupt(m.size() / 4)})
			if last, _ := pulled(t, p, ref); !last[ref].New {
				t.Errorf("%+v", last[ref])
			}
			reg.Stop()
			m.same(t, p.Mount(ref))
		})
	}
}

// TestSomeFail: an image that cannot be pulled keeps no other from it.
func TestSomeFail(t *testing.T) {
	t.Parallel()
	m := newImage("some/fail", newPart(t, "x", testkit.Gzip, 2))
	reg := testkit.NewRegistry(t)
	reg.Publish(t, m.repo, "v1", m.layers...)
	p := testkit.NewPeel(t)
	r := p.Run("pull", reg.Ref("not/there", "v1"), reg.Ref(m.repo, "v1"))
	if r.Code != testkit.NotFound || !strings.Contains(r.Stderr, "not/there") || !strings.Contains(r.Stdout, "Downloaded newer image for "+reg.Ref(m.repo, "v1")) {
		t.Errorf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
}
