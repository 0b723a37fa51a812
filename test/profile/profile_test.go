//go:build linux

package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	many     = 1200 // files of an image
	few      = 300
	fileSize = 20_000
	read     = 100 // files of the workload
	// guessed is what a mount may fetch on guesses before the profile is there.
	guessed = 128 << 10
)

// wan is a line of 40 ms and 100 Mbit/s.
func wan() testkit.Link {
	return testkit.Link{Delay: 40 * time.Millisecond, BytesPerSecond: 100e6 / 8}
}

func file(i int) string { return fmt.Sprintf("data/%02d/%04d", i/100, i) }

// layers are two with files that do not compress, in directories of a hundred.
func layers(t *testing.T, f testkit.Form, files int) []testkit.Layer {
	t.Helper()
	var out []testkit.Layer
	for half := range 2 {
		entries := []testkit.Entry{testkit.Dir("data")}
		for i := half * files / 2; i < (half+1)*files/2; i++ {
			if i%100 == 0 {
				entries = append(entries, testkit.Dir(fmt.Sprintf("data/%02d", i/100)))
			}
			entries = append(entries, testkit.File(file(i), testkit.Noise(uint64(i), fileSize)))
		}
		out = append(out, testkit.Encode(t, f, entries...))
	}
	return out
}

// workload is an order in which an image's files are read, each nowhere near
// the one before.
func workload(k, files int) int { return k * 467 % files }

// readFiles reads the files [first, first+n) of the workload, one after another.
func readFiles(t *testing.T, root string, files, first, n int) time.Duration {
	t.Helper()
	start := time.Now()
	for k := first; k < first+n; k++ {
		i := workload(k, files)
		got, err := os.ReadFile(filepath.Join(root, file(i)))
		if err != nil || !bytes.Equal(got, testkit.Noise(uint64(i), fileSize)) {
			t.Fatalf("%s: %d bytes, %v", file(i), len(got), err)
		}
	}
	return time.Since(start)
}

// shown is what peel profile show says.
type shown struct {
	Runs       int    `json:"runs"`
	OwnRuns    int    `json:"own_runs"`
	From       string `json:"from"`
	Compressed int64  `json:"compressed"`
	Touches    []struct {
		At     int64    `json:"at_ms"`
		Weight int      `json:"weight"`
		Replay bool     `json:"replayed"`
		Paths  []string `json:"paths"`
	} `json:"touches"`
}

func show(t *testing.T, p *testkit.Peel, ref string, flags ...string) shown {
	t.Helper()
	var s shown
	out := p.Must(append([]string{"profile", "show", "--json", ref}, flags...)...).Stdout
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// cost is what a mount of the image, and the workload on it, have cost.
type cost struct {
	mounted, ran    time.Duration
	requests, bytes int64
}

func (c cost) String() string {
	return fmt.Sprintf("mounted after %v, ran %v, %d requests, %d bytes", c.mounted, c.ran, c.requests, c.bytes)
}

// run mounts, runs the workload and unmounts.
func run(t *testing.T, p *testkit.Peel, line *testkit.Line, ref string, flags ...string) (c cost) {
	t.Helper()
	requests, size := line.Count()
	start := time.Now()
	root := p.Mount(ref, flags...)
	c.mounted = time.Since(start)
	c.ran = readFiles(t, root, many, 0, read)
	p.Must("profile", "record", root)
	p.Umount(root)
	c.requests, c.bytes = line.Count()
	c.requests, c.bytes = c.requests-requests, c.bytes-size
	return c
}

// TestSecondMount: a mount of an image whose profile was pushed, on a machine
// that has never seen it, needs fewer requests and less time for the same
// workload than the first mount of all, and hardly a byte more than that reads.
func TestSecondMount(t *testing.T) {
	for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked, testkit.Gzip} {
		t.Run(string(form), func(t *testing.T) {
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "team/app", "v1", layers(t, form, many)...)
			line := reg.Behind(t, wan())
			ref := line.Host() + "/team/app:v1"
			if form == testkit.Gzip {
				testkit.NewPeel(t).Must("index", "push", ref)
			}
			p := testkit.NewPeel(t)
			first := run(t, p, line, ref)
			learned := show(t, p, ref)
			pushed := p.Must("profile", "push", ref).Stdout
			if again := p.Must("profile", "push", ref).Stdout; again != pushed {
				t.Errorf("pushed %s, then %s", pushed, again)
			}
			blind := run(t, testkit.NewPeel(t), line, ref, "--prefetch", "none")
			q := testkit.NewPeel(t)
			second := run(t, q, line, ref)
			t.Logf("\nno guesses:      %v\nno profile:      %v\nwith a profile:  %v\n%d touches of %d bytes", blind, first, second, len(learned.Touches), learned.Compressed)

			if learned.Runs != 1 || learned.OwnRuns != 1 || len(learned.Touches) < 4 {
				t.Errorf("%+v", learned)
			}
			// What the workload costs by itself: documents and tables, and spans.
			documents := blind.bytes - learned.Compressed
			if most := documents + learned.Compressed*11/10 + guessed; second.bytes > most {
				t.Errorf("%d bytes, at most %d", second.bytes, most)
			}
			if second.requests >= first.requests {
				t.Error("the profile saves no requests")
			}
			if form != testkit.Gzip && second.ran > first.ran*2/3 { // of that, nearly all is fetched in any case
				t.Error("the profile saves no time")
			}
			if second.mounted > 2*first.mounted+200*time.Millisecond {
				t.Error("the mount is slower")
			}
			if got := show(t, q, ref); got.OwnRuns != 1 || got.Runs != 2 || got.From == "" {
				t.Errorf("the pulled profile: %d runs, %d of them own, from %q", got.Runs, got.OwnRuns, got.From)
			}
		})
	}
}
