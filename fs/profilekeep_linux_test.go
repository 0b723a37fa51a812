package fs

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/manifest"
)

func quietLog() *logrus.Entry {
	l := logrus.New()
	l.SetLevel(logrus.PanicLevel)
	return logrus.NewEntry(l)
}

func workload() ProfileName { return ProfileName{digest.FromString("image"), ""} }

// TestOpenRuns: a run is written again and again while it is under way, counts
// once, and does so too if its server is killed.
func TestOpenRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d profileDoc
		d.Image = workload().Image
		early := runOf(touches{{0, 0, 10, 0, 0}})
		late := runOf(touches{{0, 0, 10, 0, 0}, {0, 10, 10, 1, 0}})
		d.put("one", early, time.Now())
		d.put("one", late, time.Now())
		d.put("two", early, time.Now())
		d.put("none", runOf(nil), time.Now())
		if k := d.all(); k.Own != 2 || k.Profile.Runs != 2 || len(k.Profile.Touches) != 2 {
			t.Errorf("%d runs under way, of %+v", k.Own, k.Profile)
		}
		d.end("one")
		d.end("one")
		d.put("one", late, time.Now())
		if d.Own != 1 || len(d.Open) != 1 || d.Profile.Runs != 1 {
			t.Errorf("a run that has ended counts %d times", d.Own)
		}
		time.Sleep(abandoned + time.Second) //nolint:forbidigo // of synctest
		d.sweep(time.Now())
		if d.Own != 2 || len(d.Open) != 0 || d.Profile.Runs != 2 {
			t.Errorf("%d runs, %d under way", d.Own, len(d.Open))
		}
		raw, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeProfileDoc(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		for i := range 2 * maxOpenRuns {
			d.put(fmt.Sprint(i), early, time.Now())
		}
		if _, err := d.encode(); err != nil || len(d.Open) != maxOpenRuns || len(d.Done) > maxOpenRuns {
			t.Errorf("%d runs under way, %d have ended: %v", len(d.Open), len(d.Done), err)
		}
	})
}

// TestProfileOfMany: what several mounts write at once is all there.
func TestProfileOfMany(t *testing.T) {
	t.Parallel()
	c := newFolder(t)
	log := quietLog()
	var all sync.WaitGroup
	const mounts = 8
	for i := range mounts {
		all.Go(func() {
			id := fmt.Sprint("run ", i)
			run := runOf(touches{{0, 0, 10, 0, 0}, {0, int64(10 + 10*i), 10, 1, 0}})
			for _, then := range []func(*profileDoc, string){
				func(*profileDoc, string) {}, func(d *profileDoc, id string) { d.end(id) },
			} {
				err := changeProfile(t.Context(), c, workload(), log, func(d *profileDoc) {
					d.put(id, run, time.Now())
					then(d, id)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	k := ReadProfile(c, workload(), log)
	if k.Own != mounts || k.Profile.Runs != mounts || k.Profile.Touches[0].Weight != manifest.MaxProfileWeight {
		t.Errorf("%d runs: %+v", k.Own, k.Profile)
	}
}

func TestAdoptProfile(t *testing.T) {
	t.Parallel()
	c, log := newFolder(t), quietLog()
	theirs, blob := runOf(touches{{0, 0, 10, 0, 0}}), digest.FromString("blob")
	theirs.Runs = 5
	adopted, err := AdoptProfile(t.Context(), c, theirs, blob, log)
	if k := ReadProfile(c, workload(), log); !adopted || err != nil || k.Own != 0 || k.From != blob || k.Profile.Runs != 5 {
		t.Errorf("%t, %v: %+v", adopted, err, k)
	}
	err = changeProfile(t.Context(), c, workload(), log, func(d *profileDoc) {
		d.put("mine", runOf(touches{{0, 0, 10, 0, 0}}), time.Now())
		d.end("mine")
	})
	if k := ReadProfile(c, workload(), log); err != nil || k.Own != 1 || k.Profile.Runs != 6 {
		t.Errorf("%v: %+v", err, k)
	}
	if adopted, err := AdoptProfile(t.Context(), c, theirs, digest.FromString("later"), log); adopted || err != nil {
		t.Errorf("it takes the place of runs of this machine: %v", err)
	}
}

func TestDamagedProfile(t *testing.T) {
	t.Parallel()
	log := quietLog()
	good := profileDoc{Image: workload().Image, Profile: runOf(touches{{0, 0, 10, 0, 0}}), Own: 1}
	raw, err := good.encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		raw  string
	}{
		{"empty", ""},
		{"cut off", string(raw[:len(raw)/2])},
		{"of another image", strings.Replace(string(raw), workload().Image.String(), digest.FromString("other").String(), 1)},
		{"of another entrypoint", strings.Replace(string(raw), `"own_runs"`, `"entrypoint":"x","own_runs"`, 1)},
		{"that reads beyond its layer", strings.Replace(string(raw), `[0,0,10,`, `[0,0,10000000000,`, 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newFolder(t)
			if tc.raw == string(raw) {
				t.Fatal("nothing was changed")
			}
			if err := c.Write("profile", workload().key(), []byte(tc.raw)); err != nil {
				t.Fatal(err)
			}
			if k := ReadProfile(c, workload(), log); k.Profile != nil || k.Own != 0 {
				t.Errorf("%+v", k)
			}
			err := changeProfile(t.Context(), c, workload(), log, func(d *profileDoc) { d.put("x", runOf(touches{{0, 0, 10, 0, 0}}), time.Now()) })
			if k := ReadProfile(c, workload(), log); err != nil || k.Own != 1 {
				t.Errorf("%v: %+v", err, k)
			}
		})
	}
}

func FuzzProfileDoc(f *testing.F) {
	d := profileDoc{Image: workload().Image, Profile: runOf(touches{{0, 0, 10, 0, 0}}), Own: 1}
	d.put("open", runOf(touches{{1, 0, 10, 0, 0}}), time.Unix(5, 0))
	raw, err := d.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := decodeProfileDoc(raw)
		if err != nil {
			return
		}
		for len(d.Open) > 0 {
			d.end(d.Open[0].ID)
		}
		if k := d.all(); k.Profile != nil {
			if _, err := k.Profile.Encode(); err != nil && k.Profile.Runs >= 0 && k.Profile.Runs < 1<<30 {
				t.Error(err)
			}
		}
	})
}
