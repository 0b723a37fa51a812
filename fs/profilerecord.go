package fs

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// What of a run is recorded: how a workload starts, not what somebody looks for
// in a mount that lives for weeks.
const (
	profileWindow = 2 * time.Minute  // from the first touch on
	profileMost   = 512 << 20        // compressed bytes
	profileTick   = 30 * time.Second // how much of a run a killed server may lose
)

// profileRun is what a mount has read so far.
type profileRun struct {
	*manifest.Profile
	id   string
	over bool // nothing that is read from now on belongs to it
}

// profileRun returns what has been read of the image first.
func (m *Image) profileRun(entrypoint string, now time.Time) profileRun {
	type touched struct {
		layer.Touch
		layer int
	}
	var all []touched
	for i, l := range m.layers {
		for _, t := range l.Touches() {
			all = append(all, touched{t, i})
		}
	}
	slices.SortStableFunc(all, func(a, b touched) int { return a.At.Compare(b.At) })
	run := profileRun{Profile: &manifest.Profile{
		Image: m.Manifest.Desc.Digest, Entrypoint: entrypoint, Runs: 1, Updated: now.UTC().Truncate(time.Second),
	}}
	if len(all) == 0 {
		return run
	}
	first := all[0].At
	run.id = fmt.Sprintf("%d-%d", os.Getpid(), first.UnixNano())
	run.over = now.Sub(first) > profileWindow
	rows := map[digest.Digest]int{}
	seen := map[[2]int]bool{} // an image may have a layer twice
	size := int64(0)
	for _, t := range all {
		x := m.layers[t.layer].Index()
		d := m.Manifest.Layers[t.layer].Digest
		row, known := rows[d]
		if !known {
			row = len(rows)
			rows[d] = row
			run.Layers = append(run.Layers, manifest.ProfileLayer{Digest: d, Space: x.Info.AddrSize})
		}
		s := &x.Spans[t.Span]
		if size += s.CLen; size > profileMost || len(run.Touches) == manifest.MaxProfileTouches || t.At.Sub(first) > profileWindow {
			run.over = true
			break
		}
		if s.Len == 0 || seen[[2]int{row, t.Span}] {
			continue
		}
		seen[[2]int{row, t.Span}] = true
		run.Touches = append(run.Touches, manifest.ProfileTouch{
			Layer: row, Addr: s.Addr, Len: s.Len, At: t.At.Sub(first).Milliseconds(), Weight: manifest.MaxProfileWeight,
		})
	}
	return run
}

// Record writes down what is read of the image first, into the profile that o
// names, until the window of a run is over or ctx is done; EndRecord has the
// rest to do then. What goes wrong is logged.
func (m *Image) Record(ctx context.Context, o *ProfileOptions) {
	tick := time.NewTicker(profileTick)
	defer tick.Stop()
	written := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		run := m.profileRun(o.Entrypoint, time.Now())
		var err error
		if run.over {
			err = m.EndRecord(ctx, o)
		} else if n := len(run.Touches); n > written {
			written = n
			_, err = m.SaveRecord(ctx, o)
		}
		if err != nil && ctx.Err() == nil {
			o.Log.WithError(err).WithField("image", run.Image).Warn("what is read first is not remembered")
		}
		if run.over {
			return
		}
	}
}

// SaveRecord writes down what has been read so far, as a run under way, and
// returns how many touches that are.
func (m *Image) SaveRecord(ctx context.Context, o *ProfileOptions) (int, error) {
	return m.saveRecord(ctx, o, func(*profileDoc, string) {})
}

// EndRecord writes down what was read, as a run that has ended. It does nothing
// the second time, nor if nothing was read.
func (m *Image) EndRecord(ctx context.Context, o *ProfileOptions) error {
	_, err := m.saveRecord(ctx, o, func(d *profileDoc, id string) { d.end(id) })
	return err
}

func (m *Image) saveRecord(ctx context.Context, o *ProfileOptions, then func(d *profileDoc, id string)) (int, error) {
	run := m.profileRun(o.Entrypoint, time.Now())
	if len(run.Touches) == 0 {
		return 0, nil
	}
	n := ProfileName{run.Image, o.Entrypoint}
	err := changeProfile(ctx, o.Cache, n, o.Log, func(d *profileDoc) {
		d.put(run.id, run.Profile, time.Now())
		then(d, run.id)
	})
	if err != nil {
		err = fmt.Errorf("profile of %s: %w", run.Image, err)
	}
	return len(run.Touches), err
}
