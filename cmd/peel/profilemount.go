package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
)

// recordTimeout is how long a server that ends tries to write down what was
// read.
const recordTimeout = 10 * time.Second

// profileOptions say which profile a mount is for.
func (o *mountOptions) profileOptions(s *session) (*fs.ProfileOptions, error) {
	log, err := o.serverLog()
	if err != nil {
		return nil, err
	}
	return &fs.ProfileOptions{
		Cache: kept{s.cache}, Registry: s.from, Pull: fs.Pull(o.pull), Search: s.profile, Entrypoint: o.entrypoint, Traffic: s.traffic, Log: log,
	}, manifest.CheckEntrypoint(o.entrypoint)
}

// beginProfile starts what the profile of an image is for at a mount: what
// earlier runs have read is fetched ahead, and what this one reads is recorded.
// stop ends both and keeps the record; it must be called once ctx is done. What
// goes wrong is logged: the mount does without.
func (o *mountOptions) beginProfile(ctx context.Context, s *session) (stop func() error) {
	p, err := o.profileOptions(s)
	if p != nil && err != nil {
		p.Log.WithError(err).Warn("nothing is fetched ahead or remembered")
	}
	if err != nil || s.image.Manifest.Reference.Transport() != "" {
		return func() error { return nil }
	}
	var wg sync.WaitGroup
	if o.prefetch != prefetchNone {
		wg.Go(func() { s.image.Anticipate(ctx, p) }) // ends with ctx
	}
	if !o.noRecord {
		wg.Go(func() { s.image.Record(ctx, p) }) // ends with ctx
	}
	return func() error {
		wg.Wait()
		if o.noRecord {
			return nil
		}
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		defer cancel()
		if err := s.image.EndRecord(ending, p); err != nil {
			p.Log.WithError(err).Warn("what was read first is not remembered")
		}
		return nil
	}
}

// recordPattern is the route that profileRoute answers.
const recordPattern = "POST /profile"

// recorded is its answer, and what peel profile record tells.
type recorded struct {
	Mountpoint string `json:"mountpoint"`
	Reference  string `json:"reference"`
	Digest     string `json:"digest"` // of the platform's manifest
	Entrypoint string `json:"entrypoint"`
	Touches    int    `json:"touches"` // of this mount's run so far
}

// profileRoute is how the server of a mount is told to write down now what was
// read so far.
func (o *mountOptions) profileRoute(s *session) fs.Route {
	return fs.Route{Pattern: recordPattern, Handler: func(w http.ResponseWriter, r *http.Request) {
		answer, err := o.recordNow(r.Context(), s)
		if err == nil {
			err = writeJSON(w, answer)
		}
		if err != nil {
			http.Error(w, oneLine(err.Error()), http.StatusInternalServerError)
		}
	}}
}

func (o *mountOptions) recordNow(ctx context.Context, s *session) (out recorded, err error) {
	p, err := o.profileOptions(s)
	if err != nil {
		return out, err
	}
	if o.noRecord {
		return out, usagef("the mount was made with --no-record")
	}
	m := s.image
	if s.early != nil {
		if m, err = s.early.Wait(ctx); err != nil {
			return out, err
		}
	}
	out = recorded{Reference: m.Manifest.Reference.String(), Digest: m.Manifest.Desc.Digest.String(), Entrypoint: o.entrypoint}
	out.Touches, err = m.SaveRecord(ctx, p)
	return out, err
}
