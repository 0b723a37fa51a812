package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/go-units"

	"github.com/peelfs/peel/internal/link"
)

// The simulated line: an ordinary one to a registry on another continent.
const (
	roundTrip = 40 * time.Millisecond
	bandwidth = 100_000_000 // bits a second
)

// Options say how to run the demo.
type Options struct {
	Peel   string // path of the program to show
	Out    io.Writer
	Keep   bool  // leave the image mounted until the context ends
	NoFUSE error // why nothing can be mounted here; nil if it can
}

// show is one run of the demo.
type show struct {
	Options
	dir string // everything temporary lies in it
	img *image
	srv *server
	cli *peel
}

// Run shows peel and prints what it measured.
func Run(ctx context.Context, o Options) (err error) {
	s := &show{Options: o}
	if s.dir, err = os.MkdirTemp("", "peel-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.clean()) }() //nolint:contextcheck // ctx may have ended
	for _, sub := range []string{"blobs", "tmp", "cache", "mnt", "unpacked"} {
		if err := os.Mkdir(s.path(sub), 0o700); err != nil {
			return err
		}
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := s.compare(ctx); err != nil {
		return err
	}
	if o.Keep {
		return s.keep(ctx)
	}
	return nil
}

func (s *show) path(sub string) string { return filepath.Join(s.dir, sub) }

func (s *show) say(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }

// prepare builds the image and starts its registry.
func (s *show) prepare(ctx context.Context) (err error) {
	s.say("Making an image of this machine's own files ...")
	if s.img, err = build(ctx, recipes(), s.path("blobs"), s.path("tmp")); err != nil {
		return err
	}
	if s.img.names == 0 {
		return errors.New("demo: no readable files below /usr to make an image of")
	}
	s.say("  %d entries, %s in %d eStargz layers, %s compressed",
		s.img.names, size(s.img.bytes), len(s.img.layers), size(s.img.compressed))
	line := &link.Link{RoundTrip: roundTrip, Bandwidth: bandwidth}
	if s.srv, err = serve(ctx, s.img, s.path("blobs"), line); err != nil {
		return err
	}
	s.cli = &peel{program: s.Peel, cache: s.path("cache")}
	s.say("  on a registry at the far end of a line with %v round trip and 100 Mbit/s: %s", roundTrip, s.srv.reference())
	return nil
}

// compare measures the two ways to the same files and prints the table.
func (s *show) compare(ctx context.Context) error {
	var lazy viewer = &mounted{s}
	if s.NoFUSE != nil {
		s.say("\nNothing can be mounted here (%v);\nso this shows the same through peel ls and peel cat.", s.NoFUSE)
		lazy = &browsed{s}
	}
	s.say("\nUsing it through peel ...")
	left, err := s.measure(ctx, lazy)
	if err != nil {
		return err
	}
	s.say("Pulling and unpacking it ...")
	right, err := s.measure(ctx, &pulled{s})
	if err != nil {
		return err
	}
	return s.report(left, right)
}

// keep leaves the mount alone until ctx ends.
func (s *show) keep(ctx context.Context) error {
	mnt, cache, ref := s.path("mnt"), s.path("cache"), s.srv.reference()
	if s.NoFUSE == nil {
		s.say("\nThe image stays mounted. Try, in another terminal:\n"+
			"  ls -l %s/usr/bin\n  find %s | wc -l\n  %s ps --cache %s", mnt, mnt, s.Peel, cache)
	} else {
		s.say("\nThe registry stays up. Try, in another terminal:")
	}
	s.say("  %[1]s inspect --cache %[2]s %[3]s\n  %[1]s tree --cache %[2]s -L 2 %[3]s:/usr\n\nCtrl-C ends it and removes everything.",
		s.Peel, cache, ref)
	<-ctx.Done()
	return nil
}

// cleanTimeout bounds the unmounting at the end.
const cleanTimeout = 20 * time.Second

// clean undoes everything. What is still mounted is left alone, and its folder too.
func (s *show) clean() error {
	var errs []error
	if s.cli != nil && s.NoFUSE == nil {
		ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
		defer cancel()
		if err := s.cli.run(ctx, io.Discard, "umount", "--all"); err != nil {
			return errors.Join(fmt.Errorf("demo: %s is left behind: %w", s.dir, err), s.srv.close())
		}
	}
	if s.srv != nil {
		errs = append(errs, s.srv.close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// size is a number of bytes for people.
func size(n int64) string {
	return units.CustomSize("%.3g %s", float64(n), 1000, []string{"B", "kB", "MB", "GB", "TB"})
}
