package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/fs"
)

// beginFill fetches the rest of the image, if that is wanted, until stop is
// called.
func (o *mountOptions) beginFill(ctx context.Context, s *session) (stop func() error) {
	if !o.fill {
		return func() error { return nil }
	}
	log, err := o.serverLog()
	if err != nil {
		return func() error { return err }
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the fill, or with ctx
		_ = s.image.Fill(ctx, fs.FillOptions{ // it has logged what went wrong
			Registry: s.from, Cache: kept{s.cache},
			Spools: filepath.Join(s.cache.Dir(), "fill"), Tmp: filepath.Join(s.cache.Dir(), "tmp"),
			Rate: int64(o.fillRate), Yield: s.traffic, Progress: s.filling, Log: log,
		})
	})
	return func() error {
		cancel()
		wg.Wait()
		return nil
	}
}

// serverLog is the log of what a mount does in the background.
func (o *mountOptions) serverLog() (*logrus.Entry, error) {
	if o.leashed {
		return o.logger(&boundedLog{f: os.Stderr}, logrus.InfoLevel)
	}
	return o.logger(o.err, logrus.WarnLevel)
}
