package fs

import (
	"testing"
	"time"

	"github.com/peelfs/peel/manifest"
)

// TestRecord: what is read of an image is its profile, in that order, once, and
// only for as long as a run is.
func TestRecord(t *testing.T) {
	t.Parallel()
	h, i := stargzSample(t, nil)
	c, log := newFolder(t), quietLog()
	m, err := Open(t.Context(), repo+":v1", Options{Registry: h, Cache: c, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	o := &ProfileOptions{Cache: c, Registry: h, Entrypoint: "x", Log: log}
	name := ProfileName{i.desc.Digest, "x"}
	if err := m.EndRecord(t.Context(), o); err != nil || ReadProfile(c, name, log).Profile != nil {
		t.Errorf("a run that has read nothing leaves something, or %v", err)
	}
	for n, addr := range []int64{10_000, 0, 10_000} {
		if _, err := m.ReadAt(t.Context(), 0, make([]byte, 100), addr); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			touched, err := m.SaveRecord(t.Context(), o)
			if err != nil || touched != min(n+1, 2) {
				t.Errorf("after %d reads: %d touches, %v", n+1, touched, err)
			}
		}
	}
	for range 2 {
		if err := m.EndRecord(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.SaveRecord(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	k := ReadProfile(c, name, log)
	if k.Own != 1 || k.Profile.Runs != 1 || len(k.Profile.Touches) != 2 || k.Profile.Touches[0].Addr != 10_000 ||
		k.Profile.Touches[0].Weight != manifest.MaxProfileWeight {
		t.Errorf("%d runs: %+v", k.Own, k.Profile)
	}
	for _, tc := range []struct {
		after time.Duration
		over  bool
	}{{0, false}, {profileWindow / 2, false}, {2 * profileWindow, true}} {
		if run := m.profileRun("x", time.Now().Add(tc.after)); run.over != tc.over || len(run.Touches) != 2 {
			t.Errorf("%v later: over %t, %d touches", tc.after, run.over, len(run.Touches))
		}
	}
	steps := m.Steps(k.Profile)
	if len(steps) != 2 || len(steps[0].Paths) != 1 || steps[0].Paths[0] != "/c" || !steps[0].Replay || steps[0].Cost < 5000 {
		t.Errorf("%+v", steps)
	}
}
