package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// lot is a cache that lends.
type lot struct {
	dir    string
	keys   []digest.Digest
	err    error
	listed int
}

func (l *lot) Filled(most int) ([]digest.Digest, error) {
	l.listed++
	return l.keys[:min(most, len(l.keys))], l.err
}

func (*lot) Lender(digest.Digest, int64, int) (layer.Lender, error) {
	return nil, os.ErrNotExist
}

func (l *lot) Map(_ string, key digest.Digest) (*flat.Mapping, error) {
	return flat.Map(filepath.Join(l.dir, key.Encoded()))
}

func (*lot) Read(string, digest.Digest) ([]byte, error)   { return nil, os.ErrNotExist }
func (*lot) Write(string, digest.Digest, []byte) error    { return nil }
func (*lot) Ref(string) (digest.Digest, time.Time, error) { return "", time.Time{}, os.ErrNotExist }
func (*lot) SetRef(string, digest.Digest) error           { return nil }
func (*lot) TouchRef(string) error                        { return nil }
func (*lot) Lock(context.Context, digest.Digest) (func() error, error) {
	return func() error { return nil }, nil
}

func (*lot) Store(digest.Digest, int64, int) (layer.Store, error) { return nil, os.ErrNotExist }

func (*lot) Stage(context.Context, digest.Digest) (layer.Stage, error) { return nil, os.ErrNotExist }

// lotOf has two layers.
func lotOf(t *testing.T) *lot {
	t.Helper()
	l := &lot{dir: t.TempDir()}
	for _, name := range []string{"one", "two"} {
		key := digest.FromString(name)
		l.keys = append(l.keys, key)
		if err := os.WriteFile(filepath.Join(l.dir, key.Encoded()), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestDonors(t *testing.T) {
	t.Parallel()
	l := lotOf(t)
	d := newDonors(l, logrus.NewEntry(logrus.New()))
	first, other := d.of(l.keys[0]), d.of(digest.FromString("three"))
	if l.listed != 0 {
		t.Error("listed before anything is missing")
	}
	if got, all := first(), other(); len(got) != 1 || len(all) != 2 || got[0] != all[1] {
		t.Errorf("%v and %v", got, all)
	}
	if l.listed != 1 {
		t.Errorf("listed %d times", l.listed)
	}
	p, release, err := first()[0].Index()
	if err != nil || !slices.Equal(p, []byte("two")) {
		t.Fatalf("%q, %v", p, err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(l.dir, l.keys[1].Encoded())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := first()[0].Index(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestDonorsNone(t *testing.T) {
	t.Parallel()
	if d := newDonors(struct{ Cache }{}, nil); d != nil || d.of("x") != nil {
		t.Error("a cache that does not lend has donors")
	}
	l := lotOf(t)
	l.keys, l.err = nil, errors.New("broken")
	log, hook := test.NewNullLogger()
	d := newDonors(l, logrus.NewEntry(log)).of("x")
	for range 2 {
		if got := d(); got != nil {
			t.Error(got)
		}
	}
	if n := len(hook.AllEntries()); n != 1 {
		t.Errorf("%d warnings", n)
	}
}
