package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/remote"
)

// audience is who wants to know how a server gets on.
type audience interface {
	log() (*logrus.Entry, error)
	logFile() string // "" if the log is not in a file
	// watch shows progress until stop is called.
	watch(ctx context.Context, p *fs.Progress) (stop func())
	// ready tells that the mount answers. After an error it must go again.
	ready(m mounted) error
}

func pid() int { return os.Getpid() }

// serve opens the image, mounts it and serves it until it is unmounted. Before
// the mount answers, the end of ctx undoes everything; after that, a signal
// unmounts unless somebody still uses the mount.
func (o *mountOptions) serve(ctx context.Context, j job, who audience) (err error) {
	log, err := who.log()
	if err != nil {
		return err
	}
	trace, err := o.openTrace(j.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trace.Close()) }()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(sig)

	progress := &fs.Progress{}
	stop := who.watch(ctx, progress)
	s, err := o.open(ctx, j.request, log, progress)
	stop()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	end := o.begin(ctx, s)
	defer func() { err = errors.Join(err, end()) }()
	srv, err := s.mount(ctx, j.dir, fs.MountOptions{Source: j.ref.String(), AllowOther: o.allowOther, Trace: trace.writer(), Log: log})
	if err != nil {
		return err
	}
	record := j.describe(s, who.logFile())
	record.Device = srv.Device()
	pub, err := fs.Publish(filepath.Join(j.cacheDir, "mounts"), record,
		func() fs.Status { return s.status(srv) }, s.explainRoute(srv), o.profileRoute(s))
	if err != nil {
		err = withRemedy(fmt.Errorf("mount record: %w", err),
			"free some space where the cache folder %s is, or choose another with --cache", j.cacheDir)
		return errors.Join(err, srv.Detach())
	}
	defer func() { err = errors.Join(err, pub.Close()) }()
	_, pinned := j.ref.Digest()
	pinned = pinned || j.ref.Transport() != ""
	if err := who.ready(mounted{Record: record, Resolved: s.image.Resolved, Local: s.image.Local, Pinned: pinned}); err != nil {
		return errors.Join(err, srv.Detach())
	}
	s.stays()
	log.WithFields(logrus.Fields{"image": record.Reference, "digest": record.Digest, "on": j.dir}).Info("mounted")
	return untilUnmounted(srv, sig, log)
}

// untilUnmounted keeps serving whoever still has files open when a signal
// comes: going away would break them.
func untilUnmounted(srv *fs.Server, sig <-chan os.Signal, log *logrus.Entry) error {
	for {
		select {
		case <-srv.Done():
			log.Info("unmounted")
			return srv.Wait()
		case s := <-sig:
			if err := srv.Unmount(); err != nil {
				log.WithError(err).WithField("signal", s).Error("still serving")
			}
		}
	}
}

// status is what a mount's server knows of itself.
func (s *session) status(srv *fs.Server) fs.Status {
	wire := s.from.Stats()
	st := fs.Status{Requests: wire.Requests, BytesFetched: wire.BytesFetched, LastFailure: srv.LastFailure()}
	for _, l := range s.layers() {
		st.BytesTotal += l.Index().Info.AddrSize
		st.BytesPresent += l.Present()
		did := l.Stats()
		st.BytesReused += did.Reused
		st.BytesPrefetched += did.Guessed + did.Fetched
		st.BytesUnused += did.Unused
	}
	st.LastError = lastError(wire, st.LastFailure)
	return st
}

// lastError is what went wrong last: a request to a registry for good, or a
// read, whose error then names layer and span.
func lastError(wire remote.Stats, f *fs.ReadFailure) string {
	switch {
	case f != nil && !f.Time.Before(wire.LastErrorAt):
		return f.Path + ": " + f.Error
	case wire.LastError == "" || strings.Contains(wire.LastError, wire.LastErrorHost):
		return wire.LastError
	}
	return wire.LastErrorHost + ": " + wire.LastError
}
