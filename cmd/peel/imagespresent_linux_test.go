package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// TestImagesOfInterruptedPull: nothing is said of how much is there while
// nobody knows of how much.
func TestImagesOfInterruptedPull(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, s.Dir, "two", "shelf")
	proxy := testkit.NewProxy(t, reg.Host())
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	stalled := proxy.Stalls(s.below.Desc.Digest.String(), 100_000, release)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	dir := filepath.Join(t.TempDir(), "cache")
	var out, errs bytes.Buffer
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"--cache", dir, "pull", proxy.Ref("shelf", "two"), "--platform", "linux/amd64"}, streams{out: &out, err: &errs})
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !stalled() {
		<-tick.C
	}
	interrupt()
	if got := <-code; got != exitInterrupted {
		t.Fatalf("exit code %d: %s%s", got, &out, &errs)
	}
	got := peelIn(t, dir, "images")
	if got.code != 0 || strings.Contains(got.out, "0 B") || strings.Count(got.out, "\n") != 2 {
		t.Errorf("%+v", got)
	}
}
