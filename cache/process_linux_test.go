package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func processLayout() layout { return newLayout(150, 8000) }

// fillPart fills a store that others fill, too.
func fillPart(dir string) error {
	c, err := Open(dir)
	if err != nil {
		return err
	}
	for range 2 {
		if err := fill(c, processLayout(), rand.Uint64()); err != nil {
			return err
		}
	}
	return nil
}

// fillOnPart fills stores, saying so after the first, until it is killed.
func fillOnPart(dir string) error {
	c, err := Open(dir)
	if err != nil {
		return err
	}
	l := processLayout()
	s, err := c.Store(testKey(), l.size(), l.spans())
	if err != nil {
		return err
	}
	want := l.bytes(0, l.spans())
	for i := 0; ; i++ {
		span := rand.IntN(l.spans())
		if err := s.Put(span, l[span], want[l[span]:l[span+1]]); err != nil {
			return err
		}
		if i == l.spans()/2 {
			fmt.Println("half")
		}
	}
}

func TestProcessesFillOneStore(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := processLayout()
	s := openStore(t, c, l)
	var left atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		left.Add(1)
		wg.Go(func() {
			defer left.Add(-1)
			if err := helper(t, "fill", c.Dir()).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	evicted := 0
	for ; left.Load() > 0; evicted++ {
		if err := l.evict(s, rand.IntN(l.spans())); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if err := fill(c, l, 0); err != nil {
		t.Error(err)
	}
	if p, ok, err := l.read(s, 0, l.spans()); !ok || err != nil || !bytes.Equal(p, l.bytes(0, l.spans())) {
		t.Errorf("after %d evictions: %v, %v", evicted, ok, err)
	}
}

func TestKilledProcessLeavesNothingWrong(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := processLayout()
	for range 3 {
		cmd := helper(t, "fill on", c.Dir())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Error(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Error(err)
		}
		s := openStore(t, c, l)
		if s.Present() == 0 {
			t.Error("nothing was put")
		}
		want := l.bytes(0, l.spans())
		for span := range l.spans() {
			if p, ok, err := l.read(s, span, 1); err != nil || ok && !bytes.Equal(p, want[l[span]:l[span+1]]) {
				t.Errorf("span %d: %v, %v", span, ok, err)
			}
		}
	}
}

// stagePart streams the layer unless its index is there by the time it may.
func stagePart(dir string) (err error) {
	c, err := Open(dir)
	if err != nil {
		return err
	}
	g, err := c.Stage(noContext(), testKey())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if _, err := c.Read("index", testKey()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Println("streams")
	l := processLayout()
	for span := range l.spans() {
		if _, err := g.Write(l.bytes(span, 1)); err != nil {
			return err
		}
	}
	if err := g.Commit(l.size(), l.spans()); err != nil {
		return err
	}
	return c.Write("index", testKey(), []byte("x"))
}

// diePart dies while it streams.
func diePart(dir string) error {
	c, err := Open(dir)
	if err != nil {
		return err
	}
	g, err := c.Stage(noContext(), testKey())
	if err != nil {
		return err
	}
	if _, err := g.Write(bytes.Repeat([]byte{9}, 1<<20)); err != nil {
		return err
	}
	return unix.Kill(os.Getpid(), unix.SIGKILL)
}

func TestStageOfDeadProcess(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	var exit *exec.ExitError
	if err := helper(t, "die", c.Dir()).Run(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatal(err)
	}
	g := openStage(t, c)
	want := make([]byte, 10*holeSize)
	if _, err := g.Write(want); err != nil {
		t.Fatal(err)
	}
	l := layout{0, int64(len(want))}
	if err := g.Commit(l.size(), 1); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := l.read(openStore(t, c, l), 0, 1); !ok || err != nil || !bytes.Equal(p, want) {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestOneProcessStreams(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	var streams atomic.Int32
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			out, err := helper(t, "stage", c.Dir()).Output()
			if err != nil {
				t.Error(err)
			}
			if len(out) > 0 {
				streams.Add(1)
			}
		})
	}
	wg.Wait()
	if streams.Load() != 1 {
		t.Errorf("%d processes streamed the layer", streams.Load())
	}
	if diff := cmp.Diff([]string{"data", "have", "lock", "stage.lock"}, names(t, c)); diff != "" {
		t.Error(diff)
	}
	l := processLayout()
	if p, ok, err := l.read(openStore(t, c, l), 0, l.spans()); !ok || err != nil || !bytes.Equal(p, l.bytes(0, l.spans())) {
		t.Errorf("%v, %v", ok, err)
	}
}
