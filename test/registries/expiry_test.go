//go:build linux

package registries

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	pieces    = 40
	pieceSize = 1_000_000 // bytes of a file that does not compress
	beat      = 300 * time.Millisecond
)

// publishPieces makes an image of files that are read one after the other, far
// enough apart that none is fetched with another.
func publishPieces(t *testing.T, reg *testkit.Registry) {
	t.Helper()
	var entries []testkit.Entry
	for i := range pieces {
		entries = append(entries, piece(i), testkit.File(fmt.Sprintf("between-%d", i), testkit.Noise(uint64(500+i), 2*pieceSize)))
	}
	reg.Publish(t, "pie/ces", "v1", testkit.Encode(t, testkit.Stargz, entries...))
}

func piece(i int) testkit.Entry {
	return testkit.File(fmt.Sprintf("piece-%d", i), testkit.Noise(uint64(i), pieceSize))
}

// readSlowly reads one piece after the other, one with each beat, and calls do
// before each.
func readSlowly(t *testing.T, root string, do func(i int)) {
	t.Helper()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for i := range pieces {
		do(i)
		want := piece(i)
		if got, err := os.ReadFile(filepath.Join(root, want.Name)); err != nil || !bytes.Equal(got, want.Data) {
			t.Errorf("%s: %d bytes, %v", want.Name, len(got), err)
		}
		<-tick.C
	}
}

// TestExpiry reads for 12 s through tokens of 2 s and URLs of 3 s.
func TestExpiry(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	publishPieces(t, reg)
	g := guard(t, reg.Host())
	p := testkit.NewPeel(t)
	login(t, p, g.Host(), user, password)
	root := p.Mount(g.Ref("pie/ces", "v1"))
	start := time.Now()
	var late int // requests for blobs after 8 s
	readSlowly(t, root, func(int) {
		if time.Since(start) < 8*time.Second {
			late = len(g.Blobs.Wire())
		}
	})
	late = len(g.Blobs.Wire()) - late
	tokens, oldTokens, oldURLs := g.Counts()
	t.Logf("%v: %d tokens, %d requests with an old one; %d requests for blobs, %d with an old URL, %d after 8 s",
		time.Since(start).Round(time.Second), tokens, oldTokens, len(g.Blobs.Wire()), oldURLs, late)
	if late == 0 {
		t.Error("nothing was left to be fetched after 8 s")
	}
	if tokens < 3 {
		t.Errorf("%d tokens in 12 s, each for 2 s", tokens)
	}
	// Renewed before they expire, or once each after.
	if most := 15; oldTokens > most || oldURLs > most || tokens > 3*most {
		t.Errorf("%d requests with old tokens and %d with old URLs, at most %d; %d tokens", oldTokens, oldURLs, most, tokens)
	}
	p.Umount(root)
	kept(t, g)
}

// TestIdentityToken: the registry gives tokens for an identity token, as some
// logins leave it in docker's configuration.
func TestIdentityToken(t *testing.T) {
	t.Parallel()
	const identity = "an-identity-token-of-tests"
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "a/b", "v1", testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content"))))
	g := testkit.NewGuarded(t, reg.Host(), testkit.Guard{TokenLife: time.Minute, Refresh: identity, URLLife: 3 * time.Second})
	p := testkit.NewPeel(t)
	config(t, p, map[string]any{"auths": map[string]any{g.Host(): map[string]string{"identitytoken": identity}}})
	if out := p.Must("cat", g.Ref("a/b", "v1")+":/file").Stdout; out != "content" {
		t.Errorf("%q", out)
	}
	for who, s := range map[string]testkit.Server{"hop": g.Hop, "blobs": g.Blobs} {
		testkit.Harmless(t, who, s.Wire(), identity, "tok-")
	}
	if testkit.Carried(g.Wire(), identity) {
		t.Error("the registry was sent the identity token")
	}
}

// TestHelper: a credential helper is asked again when tokens expire, and what it
// says is kept on no disk.
func TestHelper(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	publishPieces(t, reg)
	g := guard(t, reg.Host())
	p := testkit.NewPeel(t)
	bin := t.TempDir()
	asked := filepath.Join(bin, "asked")
	script := fmt.Sprintf("#!/bin/sh\necho asked >>%s\ncat >/dev/null\necho '{\"ServerURL\":\"%s\",\"Username\":\"%s\",\"Secret\":\"%s\"}'\n", asked, g.Host(), user, password)
	write(t, filepath.Join(bin, "docker-credential-of-tests"), []byte(script))
	if err := os.Chmod(filepath.Join(bin, "docker-credential-of-tests"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	config(t, p, map[string]any{"credHelpers": map[string]string{g.Host(): "of-tests"}})
	root := p.Mount(g.Ref("pie/ces", "v1"))
	readSlowly(t, root, func(int) {})
	times, err := os.ReadFile(asked)
	if err != nil || bytes.Count(times, []byte("\n")) < 3 {
		t.Errorf("the helper was asked %d times in 12 s, %v", bytes.Count(times, []byte("\n")), err)
	}
	err = filepath.WalkDir(p.Cache, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if bytes.Contains(data, []byte(password)) || bytes.Contains(data, []byte("tok-")) {
			t.Errorf("%s holds a secret", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	p.Umount(root)
	kept(t, g)
}
