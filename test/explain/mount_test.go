//go:build linux

package explain

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// ask asks about a mount, in both ways.
func ask(t *testing.T, p *testkit.Peel, dir string) (e explanation, text string) {
	t.Helper()
	out := p.Must("explain", "--json", dir).Stdout
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return e, p.Must("explain", dir).Stdout
}

// status is what peel ps --json says of the only mount.
func status(t *testing.T, p *testkit.Peel) mounted {
	t.Helper()
	var all []mounted
	out := p.Must("ps", "--json").Stdout
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	return all[0]
}

// TestSums: what is explained of a mount is what peel ps tells, what the trace
// has and what the proxy has seen.
func TestSums(t *testing.T) {
	t.Parallel()
	const delay = 20 * time.Millisecond
	for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			l := testkit.Encode(t, form, entries()...)
			reg.Publish(t, "sums", "v1", testkit.Encode(t, form, testkit.File("base", testkit.Noise(1, 5000))), l)
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.SetLink(testkit.Link{Delay: delay})
			p := testkit.NewPeel(t)
			file := filepath.Join(t.TempDir(), "trace")
			root := p.Mount(proxy.Ref("sums", "v1"), "--prefetch", "none", "--trace", file)
			log := proxy.Log()
			before, _ := ask(t, p, root)
			if n := before.Reads.Store.Count + before.Reads.Network.Count + before.RangeRequests; n != 0 {
				t.Errorf("before anything was read: %+v", before.activity)
			}
			readAll(t, root)
			await(t, file, files)
			forget(t, root)
			readAll(t, root)
			await(t, file, 2*files)
			e, text := ask(t, p, root)
			reading := proxy.Log()
			log = append(log, reading...)

			st := status(t, p)
			st.Mountpoint = root // as is compared
			if e.mounted != st {
				t.Errorf("explain says %+v, ps %+v", e.mounted, st)
			}
			if e.Requests != int64(len(log)) || e.BytesFetched != testkit.Bytes(log) || e.RangeRequests != int64(len(reading)) {
				t.Errorf("%d requests, %d for ranges, %d bytes; the proxy saw %d, %d, %d",
					e.Requests, e.RangeRequests, e.BytesFetched, len(log), len(reading), testkit.Bytes(log))
			}
			if n := e.DemandedBytes + e.GuessedBytes + e.BetweenBytes; n != testkit.Bytes(reading) {
				t.Errorf("%+v: %d bytes fetched, the proxy saw %d", e.activity, n, testkit.Bytes(reading))
			}
			bytes := map[string]int64{}
			for _, r := range lines(t, file) {
				bytes[r.From] += r.Len
			}
			sum := e.Reads.Store.Bytes + e.Reads.Network.Bytes
			if sum != bytes["store"]+bytes["network"] || e.Reads.Network.Bytes != files*fileSize || bytes["reuse"]+e.Reads.Reuse.Bytes != 0 {
				t.Errorf("%+v, traced %v", e.Reads, bytes)
			}
			if e.Reads.Network.Waited < delay*time.Duration(min(e.Reads.Network.Count, 2)) {
				t.Errorf("waited %v for the network", e.Reads.Network.Waited)
			}
			checkLayers(t, &e)
			checkSlowest(t, &e, delay)
			checkLinks(t, &e, proxy.Host(), delay)
			for _, want := range []string{"READS FROM", "page cache", "network", proxy.Host(), "SLOWEST", "/data/"} {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
		})
	}
}

// checkLayers complains unless the layers add up.
func checkLayers(t *testing.T, e *explanation) {
	t.Helper()
	var reads, requests, touched, present, total int64
	for _, l := range e.Layers {
		reads += l.Reads.Network.Count + l.Reads.Store.Count
		requests += l.RangeRequests
		touched += l.TouchedBytes
		present += l.BytesPresent
		total += l.BytesTotal
	}
	if len(e.Layers) != 2 || reads != e.Reads.Network.Count+e.Reads.Store.Count || requests != e.RangeRequests ||
		touched != e.TouchedBytes || touched == 0 || present != e.BytesPresent || total != e.BytesTotal {
		t.Errorf("%+v of %+v", e.Layers, e.activity)
	}
}

// checkSlowest complains unless the slowest reads are ones that were made.
func checkSlowest(t *testing.T, e *explanation, delay time.Duration) {
	t.Helper()
	if len(e.Slowest) == 0 || e.Slowest[0].Took < delay {
		t.Fatalf("slowest: %+v", e.Slowest)
	}
	for i, r := range e.Slowest {
		if !strings.HasPrefix(r.Path, "/data/") || r.Off < 0 || r.Off+r.Size > fileSize || r.From == "" || r.Layer != e.Layers[1].Digest ||
			i > 0 && r.Took > e.Slowest[i-1].Took {
			t.Errorf("slow read %d: %+v", i, r)
		}
	}
}

// checkLinks complains unless the one link is estimated as it is.
func checkLinks(t *testing.T, e *explanation, host string, delay time.Duration) {
	t.Helper()
	if len(e.Links) != 1 || e.Links[0].Host != host || e.Links[0].Requests == 0 {
		t.Fatalf("links: %+v", e.Links)
	}
	if rtt := e.Links[0].RoundTrip; rtt < delay || rtt > 20*delay {
		t.Errorf("round trip of %v, the link has %v", rtt, delay)
	}
}

// TestEarly: a mount that is not open yet can be asked, too.
func TestEarly(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "early", "v1", testkit.Encode(t, testkit.Gzip, entries()...))
	proxy := testkit.NewProxy(t, reg.Host())
	release := make(chan struct{})
	proxy.Stalls("/blobs/", 100_000, release)
	p := testkit.NewPeel(t)
	root := p.Mount(proxy.Ref("early", "v1"), "--early")
	if e, _ := ask(t, p, root); e.Mountpoint != root || len(e.Slowest) != 0 || e.State != "serving" {
		t.Errorf("%+v", e)
	}
	close(release)
	readAll(t, root)
	if e, _ := ask(t, p, root); len(e.Layers) != 1 || e.Reads.Store.Bytes == 0 && e.Reads.Network.Bytes == 0 {
		t.Errorf("%+v", e)
	}
}

// TestReuse: what another image has left in the cache is told apart from what
// came from the network.
func TestReuse(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "reuse", "v1", testkit.Encode(t, testkit.Stargz, entries()...))
	reg.Publish(t, "reuse", "v2", testkit.Encode(t, testkit.Stargz, append(entries(), testkit.File("more", testkit.Noise(2, 1000)))...))
	p := testkit.NewPeel(t)
	root := p.Mount(reg.Ref("reuse", "v1"), "--prefetch", "none")
	readAll(t, root)
	p.Umount(root)
	root = p.Mount(reg.Ref("reuse", "v2"), "--prefetch", "none")
	readAll(t, root)
	e, text := ask(t, p, root)
	if e.Reads.Reuse.Bytes != files*fileSize || e.Reads.Network.Bytes != 0 || e.ReusedBytes < files*fileSize*9/10 {
		t.Errorf("%+v", e.activity)
	}
	if st := status(t, p); st.BytesReused != e.ReusedBytes {
		t.Errorf("ps: %+v", st)
	}
	if ps := p.Must("ps").Stdout; !strings.Contains(ps, " reused") || !strings.Contains(text, "Reused:") {
		t.Errorf("for people:\n%s\n%s", ps, text)
	}
}

// TestUnused: what was fetched ahead and never read is told.
func TestUnused(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "unused", "v1", testkit.Encode(t, testkit.Stargz, entries()...))
	ref, p := reg.Ref("unused", "v1"), testkit.NewPeel(t)
	root := p.Mount(ref)
	readAll(t, root)
	p.Umount(root)
	p.Evict()
	root = p.Mount(ref)
	for end := time.Now().Add(time.Minute); ; {
		e, text := ask(t, p, root)
		if e.PrefetchedBytes >= files*fileSize*9/10 {
			if st := status(t, p); st.BytesUnused != e.UnusedBytes || st.BytesPrefetched != e.PrefetchedBytes+e.GuessedBytes || e.UnusedBytes == 0 {
				t.Errorf("explain: %+v, ps: %+v", e.activity, st)
			}
			if !strings.Contains(text, "has not been so far") || !strings.Contains(p.Must("ps").Stdout, " unused") {
				t.Errorf("for people:\n%s", text)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("never fetched ahead: %+v", e.activity)
		}
	}
	readAll(t, root)
	if e, _ := ask(t, p, root); e.UnusedBytes != 0 || e.Reads.Network.Bytes != 0 {
		t.Errorf("after all was read: %+v", e.activity)
	}
}

// TestNoMount: what cannot be asked.
func TestNoMount(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "dead", "v1", testkit.Encode(t, testkit.Stargz, testkit.File("a", nil)))
	p := testkit.NewPeel(t)
	dir := p.Dir()
	if r := p.Run("explain", dir); r.Code != testkit.NotFound || !strings.Contains(r.Stderr, "not a mount of this cache folder") {
		t.Errorf("a folder: exit code %d\n%s", r.Code, r.Stderr)
	}
	if r := p.Run("explain", "UPPER"); r.Code != testkit.Usage {
		t.Errorf("no image: exit code %d\n%s", r.Code, r.Stderr)
	}
	p.Must("mount", reg.Ref("dead", "v1"), dir)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if e, _ := ask(t, p, link); e.Mountpoint != dir {
		t.Errorf("by a link: %+v", e)
	}
	pid := p.ServerPID(dir)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); p.PS()[0].ServerPID == pid; {
		if r := p.Run("explain", dir); r.Code != testkit.OK {
			if !strings.Contains(r.Stderr, "peel umount "+dir) {
				t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("a dead server answers")
		}
	}
}

// TestFill: how far a fill has come.
func TestFill(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Stargz, entries()...)
	reg.Publish(t, "fill", "v1", l)
	p := testkit.NewPeel(t)
	root := p.Mount(reg.Ref("fill", "v1"), "--fill", "--prefetch", "none")
	for end := time.Now().Add(time.Minute); ; {
		e, text := ask(t, p, root)
		if len(e.Fill) == 1 && e.Fill[0].State == "done" {
			if f := e.Fill[0]; !f.Proved || f.Digest != l.Desc.Digest || f.Total != l.Desc.Size || e.BytesPresent != e.BytesTotal {
				t.Errorf("%+v", e)
			}
			if !strings.Contains(text, "1 of 1 layers proved") {
				t.Errorf("for people:\n%s", text)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never filled: %+v", e.Fill)
		}
	}
}
