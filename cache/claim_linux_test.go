package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTryClaim(t *testing.T) {
	t.Parallel()
	type span struct{ first, n int }
	for _, tc := range []struct {
		name       string
		held, want span
		ok         bool
	}{
		{"same", span{3, 4}, span{3, 4}, false},
		{"inner", span{3, 4}, span{4, 1}, false},
		{"outer", span{3, 4}, span{0, 20}, false},
		{"touching below", span{3, 4}, span{0, 3}, true},
		{"touching above", span{3, 4}, span{7, 3}, true},
		{"across the beginning", span{3, 4}, span{2, 2}, false},
		{"across the end", span{3, 4}, span{6, 2}, false},
		{"none held", span{3, 0}, span{0, 20}, true},
		{"none wanted", span{3, 4}, span{4, 0}, true},
	} {
		for _, other := range []string{"of another store", "of the same store"} {
			t.Run(tc.name+" "+other, func(t *testing.T) {
				t.Parallel()
				c, l := openCache(t), newLayout(20, 10)
				a := openStore(t, c, l)
				b := a
				if other == "of another store" {
					b = openStore(t, c, l)
				}
				release, ok, err := a.TryClaim(tc.held.first, tc.held.n)
				if err != nil || !ok {
					t.Fatal(ok, err)
				}
				theirs, ok, err := b.TryClaim(tc.want.first, tc.want.n)
				if err != nil || ok != tc.ok {
					t.Fatalf("%v, %v, want %v", ok, err, tc.ok)
				}
				if ok {
					theirs()
					theirs() // again does nothing
				}
				release()
				if _, ok, err := b.TryClaim(tc.want.first, tc.want.n); err != nil || !ok {
					t.Errorf("after the release: %v, %v", ok, err)
				}
			})
		}
	}
}

func TestClaimMisuse(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(20, 10)
	s := openStore(t, c, l)
	for _, r := range [][2]int{{-1, 1}, {0, 21}, {20, 1}, {3, -1}} {
		if _, ok, err := s.TryClaim(r[0], r[1]); ok || err == nil {
			t.Errorf("%v: %v, %v", r, ok, err)
		}
	}
	release, ok, err := s.TryClaim(0, 20)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	closeStore(t, s)
	release()
	if _, _, err := s.TryClaim(0, 1); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

// A store whose folder was deleted is nobody else's.
func TestClaimOfDeletedStore(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(20, 10)
	s := openStore(t, c, l)
	dir, err := c.layerDir(testKey())
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	release, ok, err := s.TryClaim(0, 20)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, ok, err := s.TryClaim(3, 1); ok || err != nil {
		t.Error(ok, err)
	}
	release()
}

func TestClaimWaits(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(20, 10)
	a, b := openStore(t, c, l), openStore(t, c, l)
	release, ok, err := a.TryClaim(5, 5)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Claim(ctx, 9, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	stop := time.AfterFunc(50*time.Millisecond, release)
	defer stop.Stop()
	theirs, err := b.Claim(t.Context(), 9, 2)
	if err != nil {
		t.Fatal(err)
	}
	theirs()
}

// claimPart claims spans again and again; nobody else must have them meanwhile.
func claimPart(dir string) error {
	c, err := Open(dir)
	if err != nil {
		return err
	}
	l := newLayout(20, 10)
	for range 2 {
		s, err := c.Store(testKey(), l.size(), l.spans())
		if err != nil {
			return err
		}
		for range 40 {
			first := rand.IntN(l.spans())
			n := rand.IntN(l.spans() - first)
			if err := alone(s, dir, first, n); err != nil {
				return err
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// alone claims spans and returns an error if somebody else has one of them.
func alone(s *Store, dir string, first, n int) (err error) {
	release, err := s.Claim(noContext(), first, n)
	if err != nil {
		return err
	}
	defer release()
	for i := first; i < first+n; i++ {
		f, err := os.OpenFile(filepath.Join(dir, "span"+strconv.Itoa(i)), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	}
	return nil
}

func TestProcessesClaimSpans(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := helper(t, "claim", c.Dir()).Run(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := claimPart(c.Dir()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// claimOnPart claims everything, says so, and keeps it until it is killed.
func claimOnPart(dir string) error {
	c, err := Open(dir)
	if err != nil {
		return err
	}
	l := newLayout(20, 10)
	s, err := c.Store(testKey(), l.size(), l.spans())
	if err != nil {
		return err
	}
	if _, err := s.Claim(noContext(), 0, l.spans()); err != nil {
		return err
	}
	if _, err := c.Lock(noContext(), testKey()); err != nil {
		return err
	}
	fmt.Println("claimed")
	_, err = bufio.NewReader(os.Stdin).ReadByte()
	return err
}

func TestKilledProcessHasNoClaims(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(20, 10)
	s := openStore(t, c, l)
	cmd := helper(t, "claim on", c.Dir())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
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
	if _, ok, err := s.TryClaim(7, 1); ok || err != nil {
		t.Error("claimed by two", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Lock(soon, testKey()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("locked by two", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("not killed")
	}
	if _, ok, err := s.TryClaim(0, l.spans()); !ok || err != nil {
		t.Error(ok, err)
	}
	unlock, err := c.Lock(t.Context(), testKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	var holders atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				unlock, err := c.Lock(t.Context(), testKey())
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				holders.Add(-1)
				if err := errors.Join(unlock(), unlock()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := c.Lock(t.Context(), "sha256:../../x"); err == nil {
		t.Error("a lock of no digest")
	}
}
