package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
	"github.com/peelfs/peel/remote"
)

// source is where an image comes from, and what fs asks of it. Close it.
type source interface {
	fs.Registry
	manifest.Sizer
	// Stats are those of the requests to registries.
	Stats() remote.Stats
	// Registries is the client by which they are asked, and written to. It is
	// closed with the source.
	Registries() *remote.Client
	Close() error
}

// registries makes a source of a remote.Client.
type registries struct{ *remote.Client }

func (r registries) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source {
	return r.Open(ref, d)
}

func (r registries) Registries() *remote.Client { return r.Client }

func (r registries) Close() error {
	r.Client.Close()
	return nil
}

// source opens the place that ref names, or makes a client of its registry.
func (a *app) source(ctx context.Context, ref manifest.Reference, log *logrus.Entry) (source, error) {
	client, err := a.client(log)
	if err != nil {
		return nil, err
	}
	if ref.Transport() == "" {
		return registries{client}, nil
	}
	s, err := a.openPlace(ctx, ref, log)
	if err != nil {
		client.Close()
		return nil, err
	}
	return here{s, client, len(a.foreign) > 0}, nil
}

func (a *app) openPlace(ctx context.Context, ref manifest.Reference, log *logrus.Entry) (*local.Source, error) {
	c, err := a.openCache()
	if err != nil {
		return nil, err
	}
	return local.Open(ctx, ref, local.Options{Tmp: filepath.Join(c.Dir(), "tmp"), Log: log})
}

func (a *app) openCache() (*cache.Cache, error) {
	dir, err := a.cacheDir()
	if err != nil {
		return nil, err
	}
	return cache.Open(dir)
}

// kept makes of a cache.Cache what fs asks of a cache.
type kept struct{ *cache.Cache }

func (k kept) Store(key digest.Digest, size int64, spans int) (layer.Store, error) {
	s, err := k.Cache.Store(key, size, spans)
	if err != nil {
		return nil, err // and not an interface that holds a nil *cache.Store
	}
	return s, nil
}

func (k kept) Stage(ctx context.Context, key digest.Digest) (layer.Stage, error) {
	g, err := k.Cache.Stage(ctx, key)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// imageFlags are those of every command that opens an image.
type imageFlags struct {
	platform string
	pull     pullFlag
	index    string
	require  requireFlag
}

// indexEnv names the repository of indexes where --index does not.
const indexEnv = "PEEL_INDEX"

func (f *imageFlags) add(to *pflag.FlagSet) {
	to.StringVar(&f.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor)")
	to.Var(&f.pull, "pull", "when to ask the registry what a tag means: `missing`, always or never")
	to.StringVar(&f.index, "index", "", "`repository` with indexes of other repositories' images (default $"+indexEnv+")")
	to.Var(&f.require, "require", "`trust` that an index needs: claimed, or proved, which refuses what peel verify has not proved")
}

// requireFlag is a layer.Trust on the command line; zero is claimed.
type requireFlag layer.Trust

func (r *requireFlag) String() string { return max(layer.Trust(*r), layer.Claimed).String() }
func (r *requireFlag) Type() string   { return "trust" }

func (r *requireFlag) Set(s string) error {
	for _, t := range []layer.Trust{layer.Claimed, layer.Proved} {
		if s == t.String() {
			*r = requireFlag(t)
			return nil
		}
	}
	return fmt.Errorf("%q is neither %s nor %s", s, layer.Claimed, layer.Proved)
}

// pullFlag is an fs.Pull on the command line.
type pullFlag fs.Pull

var pulls = [...]string{fs.PullMissing: "missing", fs.PullAlways: "always", fs.PullNever: "never"}

func (p *pullFlag) String() string { return pulls[*p] }
func (p *pullFlag) Type() string   { return "when" }

func (p *pullFlag) Set(s string) error {
	for i, name := range pulls {
		if s == name {
			*p = pullFlag(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of missing, always, never", s)
}

// request is an image that is to be opened, all its words checked.
type request struct {
	ref      manifest.Reference
	platform ocispec.Platform
	pull     fs.Pull
	index    reference.Named // repository of indexes; nil for none
	require  layer.Trust
	early    bool // to be shown before all of it is proved
	traffic  *layer.Traffic
	profile  *fs.ProfileSearch // nil: none is looked for
}

func (f *imageFlags) request(ref string) (request, error) {
	r := request{platform: manifest.DefaultPlatform(), pull: fs.Pull(f.pull), require: layer.Trust(f.require)}
	var err error
	if r.ref, err = manifest.ParseReference(ref); err != nil {
		return r, err
	}
	if r.index, err = indexRepo(f.index); err != nil {
		return r, err
	}
	if f.platform != "" {
		r.platform, err = manifest.ParsePlatform(f.platform)
	}
	return r, err
}

// indexRepo is the repository that --index or the environment names.
func indexRepo(name string) (reference.Named, error) {
	from := "--index"
	if name == "" {
		name, from = os.Getenv(indexEnv), "$"+indexEnv
	}
	if name == "" {
		return nil, nil //nolint:nilnil // no repository of indexes is the rule
	}
	repo, err := parseRepository(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return repo, nil
}

// session is an opened image with what it was opened by.
type session struct {
	image *fs.Image // its documents only, if early is not nil
	early *fs.Early // nil, unless the image is shown while it is opened
	from  source
	cache *cache.Cache

	profile *fs.ProfileSearch // of a mount
	traffic *layer.Traffic    // of the image's layers; nil: they have one of their own
	filling *fs.FillProgress  // of a mount with --fill
}

// open opens an image. progress may be nil.
func (a *app) open(ctx context.Context, r request, log *logrus.Entry, progress *fs.Progress) (s *session, err error) {
	s = &session{traffic: r.traffic, profile: r.profile, filling: &fs.FillProgress{}}
	if s.cache, err = a.openCache(); err != nil {
		return nil, err
	}
	if s.from, err = a.source(ctx, r.ref, log); err != nil {
		return nil, err
	}
	err = s.openImage(ctx, r, fs.Options{
		Registry: s.from, Cache: kept{s.cache},
		Platform: r.platform, Pull: r.pull, IndexRepo: r.index, Require: r.require, Schema: int(a.schema), Progress: progress, Log: log,
		Traffic: r.traffic, Profile: r.profile,
	})
	if errors.Is(err, fs.ErrNotProved) {
		err = withRemedy(err, "prove it: peel verify %s", r.ref)
	}
	if err != nil {
		return nil, errors.Join(err, s.from.Close())
	}
	return s, nil
}

func (s *session) Close() error {
	err := s.image.Close()
	if s.early != nil {
		err = errors.Join(err, s.early.Close())
	}
	return errors.Join(err, s.from.Close())
}

// browse opens the image for a command that looks into it, with the progress
// shown to people who wait, and closes it after use.
func (a *app) browse(ctx context.Context, r request, use func(*session) error) (err error) {
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	progress := &fs.Progress{}
	done := a.showProgress(ctx, progress)
	s, err := a.open(ctx, r, log, progress)
	done()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := use(s); err != nil {
		return fmt.Errorf("%s: %w", r.ref, err)
	}
	return nil
}
