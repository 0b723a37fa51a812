package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/manifest"
)

const (
	// maxOpenRuns bounds the runs that are under way, and those remembered to
	// have ended.
	maxOpenRuns = 64
	// abandoned is the age after which a run that was not ended has lost its
	// server: it writes every profileTick, for profileWindow.
	abandoned = profileWindow + 4*profileTick
)

// ProfileName names a profile in a cache.
type ProfileName struct {
	Image      digest.Digest // the platform's manifest
	Entrypoint string
}

func (n ProfileName) key() digest.Digest {
	return digest.FromString("profile\n" + n.Image.String() + "\n" + n.Entrypoint)
}

// KeptProfile is what a cache has of a profile.
type KeptProfile struct {
	// Profile is all of it together, the runs under way included; nil if there
	// is nothing.
	Profile *manifest.Profile
	Own     int           // runs of this machine that are in it
	From    digest.Digest // of the blob that it began with; "" if nothing was pulled
	doc     profileDoc
}

// profileDoc is the document. Runs under way are kept apart, since they are
// written again and again until they end, or their server does.
type profileDoc struct {
	Image      digest.Digest
	Entrypoint string
	Own        int
	From       digest.Digest
	Profile    *manifest.Profile // nil if there is none
	Open       []openRun
	Done       []string // runs that have ended, the latest last
}

type openRun struct {
	ID      string
	Written time.Time
	Profile *manifest.Profile
}

// docForm is a profileDoc as it is written.
type docForm struct {
	Image      digest.Digest   `json:"image"`
	Entrypoint string          `json:"entrypoint,omitempty"`
	Own        int             `json:"own_runs"`
	From       digest.Digest   `json:"from,omitempty"`
	Profile    json.RawMessage `json:"profile,omitempty"`
	Open       []openForm      `json:"open,omitempty"`
	Done       []string        `json:"done,omitempty"`
}

type openForm struct {
	ID      string          `json:"id"`
	Written time.Time       `json:"written"`
	Profile json.RawMessage `json:"profile"`
}

func (d *profileDoc) encode() ([]byte, error) {
	f := docForm{Image: d.Image, Entrypoint: d.Entrypoint, Own: d.Own, From: d.From, Done: d.Done}
	var err error
	if d.Profile != nil {
		if f.Profile, err = d.Profile.Encode(); err != nil {
			return nil, err
		}
	}
	for _, r := range d.Open {
		raw, err := r.Profile.Encode()
		if err != nil {
			return nil, err
		}
		f.Open = append(f.Open, openForm{r.ID, r.Written, raw})
	}
	return json.Marshal(f)
}

func decodeProfileDoc(data []byte) (d profileDoc, err error) {
	var f docForm
	if err := json.Unmarshal(data, &f); err != nil {
		return d, fmt.Errorf("%w: %w", flat.ErrCorrupt, err)
	}
	d = profileDoc{Image: f.Image, Entrypoint: f.Entrypoint, Own: f.Own, From: f.From, Done: f.Done}
	if len(f.Open) > maxOpenRuns || len(f.Done) > maxOpenRuns {
		return d, fmt.Errorf("%w: %d runs under way", flat.ErrCorrupt, len(f.Open))
	}
	if len(f.Profile) > 0 {
		if d.Profile, err = d.parse(f.Profile); err != nil {
			return d, err
		}
	}
	for _, r := range f.Open {
		p, err := d.parse(r.Profile)
		if err != nil {
			return d, err
		}
		d.Open = append(d.Open, openRun{r.ID, r.Written, p})
	}
	return d, nil
}

func (d *profileDoc) parse(raw []byte) (*manifest.Profile, error) {
	p, err := manifest.ParseProfile(raw)
	if err == nil && (p.Image != d.Image || p.Entrypoint != d.Entrypoint) {
		err = errors.New("a profile of another workload")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", flat.ErrCorrupt, err)
	}
	return p, nil
}

// put takes in what a run has read so far, unless the run has ended.
func (d *profileDoc) put(id string, run *manifest.Profile, now time.Time) {
	if slices.Contains(d.Done, id) || len(run.Touches) == 0 {
		return
	}
	for i := range d.Open {
		if d.Open[i].ID == id {
			d.Open[i].Written, d.Open[i].Profile = now, run
			return
		}
	}
	d.Open = append(d.Open, openRun{id, now, run})
	if len(d.Open) > maxOpenRuns {
		d.end(d.Open[0].ID)
	}
}

// end merges a run that has ended.
func (d *profileDoc) end(id string) {
	i := slices.IndexFunc(d.Open, func(r openRun) bool { return r.ID == id })
	if i < 0 {
		return
	}
	d.Profile = mergeProfile(d.Profile, d.Open[i].Profile)
	d.Own++
	d.Open = slices.Delete(d.Open, i, i+1)
	d.Done = append(d.Done, id)
	d.Done = d.Done[max(0, len(d.Done)-maxOpenRuns):]
}

// sweep ends the runs whose server was killed.
func (d *profileDoc) sweep(now time.Time) {
	for _, r := range slices.Clone(d.Open) {
		if age := now.Sub(r.Written); age > abandoned || age < -abandoned {
			d.end(r.ID)
		}
	}
}

// all is the profile with the runs under way.
func (d *profileDoc) all() *KeptProfile {
	k := &KeptProfile{Profile: d.Profile, Own: d.Own + len(d.Open), From: d.From, doc: *d}
	for _, r := range d.Open {
		k.Profile = mergeProfile(k.Profile, r.Profile)
	}
	return k
}

// ReadProfile returns the profile of a workload. One that the cache has not, or
// that is damaged, has no Profile.
func ReadProfile(c Docs, n ProfileName, log *logrus.Entry) *KeptProfile {
	d := readProfileDoc(c, n, log)
	return d.all()
}

func readProfileDoc(c Docs, n ProfileName, log *logrus.Entry) profileDoc {
	data, err := c.Read("profile", n.key())
	var d profileDoc
	if err == nil {
		d, err = decodeProfileDoc(data)
	}
	if err == nil && (d.Image != n.Image || d.Entrypoint != n.Entrypoint) {
		err = fmt.Errorf("%w: a profile of another workload", flat.ErrCorrupt)
	}
	if err == nil {
		return d
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		log.WithError(err).WithField("image", n.Image).Info("learning anew what is read first")
	}
	return profileDoc{Image: n.Image, Entrypoint: n.Entrypoint}
}

// changeProfile changes a profile while no other process does.
func changeProfile(ctx context.Context, c Docs, n ProfileName, log *logrus.Entry, change func(d *profileDoc)) (err error) {
	unlock, err := c.Lock(ctx, n.key())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	d := readProfileDoc(c, n, log)
	d.sweep(time.Now())
	change(&d)
	data, err := d.encode()
	if err != nil {
		return err
	}
	return c.Write("profile", n.key(), data)
}

// AdoptProfile makes a profile from elsewhere, with the digest of its blob, what
// this machine begins with. It does nothing, and reports false, if this machine
// has watched a run itself.
func AdoptProfile(ctx context.Context, c Docs, p *manifest.Profile, from digest.Digest, log *logrus.Entry) (adopted bool, err error) {
	err = changeProfile(ctx, c, ProfileName{p.Image, p.Entrypoint}, log, func(d *profileDoc) {
		if d.Own == 0 && len(d.Open) == 0 {
			d.Profile, d.From, adopted = p, from, true
		}
	})
	return adopted && err == nil, err
}

// ProfileNames are the workloads of an image that the cache has profiles of, by
// entrypoint.
func ProfileNames(c Shelf, image digest.Digest) ([]ProfileName, error) {
	keys, err := c.Keys("profile")
	if err != nil {
		return nil, err
	}
	var out []ProfileName
	for _, key := range keys {
		data, err := c.Read("profile", key)
		if err != nil {
			continue // gone meanwhile
		}
		d, err := decodeProfileDoc(data)
		n := ProfileName{d.Image, d.Entrypoint}
		if err == nil && d.Image == image && n.key() == key && (d.Profile != nil || len(d.Open) > 0) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b ProfileName) int { return strings.Compare(a.Entrypoint, b.Entrypoint) })
	return out, nil
}

// RemoveProfile forgets a profile. A run under way begins a new one.
func RemoveProfile(ctx context.Context, c Shelf, n ProfileName) (err error) {
	unlock, err := c.Lock(ctx, n.key())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	_, err = c.Free("profile", n.key())
	return err
}
