package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// goOnPart streams the layer, with a note on each span, from where the last
// process ended. It prints the spans that it writes.
func goOnPart(dir string) (err error) {
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
	l := processLayout()
	span, err := goOn(g, l)
	if err != nil {
		return err
	}
	for ; span < l.spans(); span++ {
		if _, err := g.Write(l.bytes(span, 1)); err != nil {
			return err
		}
		if err := g.Note(fmt.Appendf(nil, "%d\n", span+1)); err != nil {
			return err
		}
		fmt.Println(span)
	}
	if err := g.Commit(l.size(), l.spans()); err != nil {
		return err
	}
	return c.Write("index", testKey(), []byte("x"))
}

// goOn returns the span that comes next, according to notes that must fit what
// is staged.
func goOn(g *Stage, l layout) (int, error) {
	notes, size, err := g.Notes()
	if err != nil {
		return 0, err
	}
	whole := notes[:bytes.LastIndexByte(notes, '\n')+1]
	lines := strings.Fields(string(whole))
	span := 0
	for i, line := range lines {
		if span, err = strconv.Atoi(line); err != nil || span != i+1 {
			return 0, fmt.Errorf("note %d: %q", i, line)
		}
	}
	if size < l[span] {
		// Killed in Commit, with the notes still there.
		return 0, g.Rewind(0, nil)
	}
	if err := g.Rewind(l[span], whole); err != nil {
		return 0, err
	}
	p := make([]byte, l[span])
	if n, err := g.ReadAt(p, 0); int64(n) != l[span] || err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%d bytes: %w", n, err)
	}
	if !bytes.Equal(p, l.bytes(0, span)) {
		return 0, errors.New("other bytes than were written")
	}
	return span, nil
}

// killAfter runs a process that goes on, and kills it when it has written n
// spans. It returns the first of them.
func killAfter(t *testing.T, c *Cache, n int) int {
	t.Helper()
	cmd := helper(t, "go on", c.Dir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := -1
	lines := bufio.NewScanner(out)
	for i := 0; i < n && lines.Scan(); i++ {
		if first < 0 {
			if first, err = strconv.Atoi(lines.Text()); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && (!errors.As(err, &exit) || exit.Exited()) {
		t.Error(err)
	}
	return first
}

// Killed wherever it was, a pass is gone on with; of several processes that
// come, one does so.
func TestKilledPassesGoOn(t *testing.T) {
	t.Parallel()
	for range 5 {
		c := openCache(t)
		l := processLayout()
		least := 0 // spans that are noted
		for range 3 {
			n := 1 + rand.IntN(l.spans()/8)
			first := killAfter(t, c, n)
			if first < 0 {
				break // it was through before it was killed
			}
			if first < least {
				t.Errorf("goes on at span %d, %d were noted", first, least)
			}
			least = first + n
			if slices.Contains(names(t, c), "data") {
				least = 0 // it was through, but for the index
				break
			}
		}
		finish(t, c, least)
		if p, ok, err := l.read(openStore(t, c, l), 0, l.spans()); !ok || err != nil || !bytes.Equal(p, l.bytes(0, l.spans())) {
			t.Errorf("%v, %v", ok, err)
		}
		wantNames(t, c, "data", "have", "lock", "stage.lock")
	}
}

// finish has several processes go on; no more than one may do so, at a span not
// before least.
func finish(t *testing.T, c *Cache, least int) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var outs []string
	for range 3 {
		wg.Go(func() {
			out, err := helper(t, "go on", c.Dir()).Output()
			if err != nil {
				t.Error(err)
			}
			if len(out) > 0 {
				mu.Lock()
				defer mu.Unlock()
				outs = append(outs, string(out))
			}
		})
	}
	wg.Wait()
	if len(outs) > 1 {
		t.Errorf("%d processes streamed the layer", len(outs))
	}
	for _, out := range outs {
		line, _, _ := strings.Cut(out, "\n")
		if first, err := strconv.Atoi(line); err != nil || first < least {
			t.Errorf("went on at %q, %d were noted", line, least)
		}
	}
}
