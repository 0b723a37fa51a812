package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/peelfs/peel/internal/link"
)

// program is run from the image; it needs no other file of it.
const program = "/usr/bin/sha256sum"

// viewer is a way to the files of the image. Paths are relative to its root.
type viewer interface {
	// open makes the image readable.
	open(ctx context.Context) error
	// read returns the first n bytes of a file, or all of it if n is negative.
	read(ctx context.Context, file string, n int64) ([]byte, error)
	// list looks at every name with its attributes.
	list(ctx context.Context) error
	// sum runs the image's own sha256sum on a file; "" if that cannot be done.
	sum(ctx context.Context, file string) (string, error)
}

// times are all counted from the beginning.
type times struct {
	ready, first, whole, listed, ran time.Duration
	wire                             link.Stats
	sum                              string // what the image's sha256sum said; "" if it could not be run
}

// measure does the same few things as people would, and takes the time.
func (s *show) measure(ctx context.Context, v viewer) (t times, err error) {
	begin, before := time.Now(), s.srv.line.Stats()
	var data []byte
	for _, step := range []struct {
		at *time.Duration
		do func() error
	}{
		{&t.ready, func() error { return v.open(ctx) }},
		{&t.first, func() (err error) { _, err = v.read(ctx, s.img.pick, 1); return err }},
		{&t.whole, func() (err error) { data, err = v.read(ctx, s.img.pick, -1); return err }},
		{&t.listed, func() error { return v.list(ctx) }},
		{&t.ran, func() (err error) { t.sum, err = v.sum(ctx, s.img.pick); return err }},
	} {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		if err := step.do(); err != nil {
			return t, err
		}
		*step.at = time.Since(begin)
	}
	t.wire = s.srv.line.Stats().Since(before)
	return t, s.check(data, t.sum)
}

// check compares what was read with the file that the image was made from.
func (s *show) check(data []byte, sum string) error {
	want, err := os.ReadFile("/" + s.img.pick)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(want)
	if got := sha256.Sum256(data); got != digest {
		return fmt.Errorf("demo: %s: read %d bytes that are not the file's %d", s.img.pick, len(data), len(want))
	}
	if w := hex.EncodeToString(digest[:]); sum != "" && sum != w {
		return fmt.Errorf("demo: %s: the image's sha256sum says %s, not %s", s.img.pick, sum, w)
	}
	return nil
}

// folder is a viewer of an ordinary tree of files.
type folder string

func (f folder) read(_ context.Context, file string, n int64) ([]byte, error) {
	r, err := os.Open(filepath.Join(string(f), file))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n < 0 {
		return io.ReadAll(r)
	}
	return io.ReadAll(io.LimitReader(r, n))
}

func (f folder) list(ctx context.Context) error {
	return filepath.WalkDir(string(f), func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		if err == nil {
			err = ctx.Err()
		}
		return err
	})
}

// cannotExecute is how a shell ends that may not run a program (POSIX).
const cannotExecute = 126

func (f folder) sum(ctx context.Context, file string) (string, error) {
	bin := filepath.Join(string(f), program)
	if fi, err := os.Lstat(bin); err != nil || !fi.Mode().IsRegular() {
		return "", nil // not among this machine's files, or one of many in one
	}
	var out strings.Builder
	// By way of a shell: Go holds a processor until execve(2) has read the
	// program, and on the mount it reads from the registry in this process.
	err := run(ctx, &out, "/bin/sh", "-c", `exec "$0" "$@"`, bin, filepath.Join(string(f), file))
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == cannotExecute {
		return "", nil // the folder for temporary files is mounted noexec
	}
	if err != nil {
		return "", err
	}
	sum, _, _ := strings.Cut(out.String(), " ")
	return sum, nil
}

// mounted views the image through peel mount.
type mounted struct{ *show }

func (m *mounted) root() folder { return folder(m.path("mnt")) }

func (m *mounted) open(ctx context.Context) error {
	return m.cli.run(ctx, io.Discard, "mount", m.srv.reference(), m.path("mnt"))
}

func (m *mounted) read(ctx context.Context, file string, n int64) ([]byte, error) {
	return m.root().read(ctx, file, n)
}
func (m *mounted) list(ctx context.Context) error { return m.root().list(ctx) }
func (m *mounted) sum(ctx context.Context, file string) (string, error) {
	return m.root().sum(ctx, file)
}

// browsed views the image through peel ls and peel cat.
type browsed struct{ *show }

func (b *browsed) open(ctx context.Context) error {
	return b.cli.run(ctx, io.Discard, "ls", b.srv.reference())
}

func (b *browsed) read(ctx context.Context, file string, n int64) ([]byte, error) {
	var out strings.Builder
	err := b.cli.run(ctx, &out, "cat", b.srv.reference()+":/"+file)
	data := []byte(out.String())
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return data, err
}

func (b *browsed) list(ctx context.Context) error {
	return b.cli.run(ctx, io.Discard, "ls", "-l", "-R", "-a", b.srv.reference())
}

func (b *browsed) sum(context.Context, string) (string, error) { return "", nil }

// pulled views the image after a full pull.
type pulled struct{ *show }

func (p *pulled) root() folder { return folder(p.path("unpacked")) }

func (p *pulled) open(ctx context.Context) error {
	return p.srv.pull(ctx, p.path("unpacked"), p.path("tmp"))
}

func (p *pulled) read(ctx context.Context, file string, n int64) ([]byte, error) {
	return p.root().read(ctx, file, n)
}
func (p *pulled) list(ctx context.Context) error { return p.root().list(ctx) }
func (p *pulled) sum(ctx context.Context, file string) (string, error) {
	return p.root().sum(ctx, file)
}
