package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/peelfs/peel/internal/dockersave"
	"github.com/peelfs/peel/internal/ocilayout"
	"github.com/peelfs/peel/manifest"
)

// saveDestination is where images are saved to.
type saveDestination struct {
	transport string // one of manifest's
	path      string // "" for standard output
	name      string // of the one image; "" if none was given
}

func (d saveDestination) String() string {
	if d.path == "" {
		return "standard output"
	}
	return d.transport + ":" + d.path
}

func (d saveDestination) isLayout() bool { return isLayout(d.transport) }

func isLayout(transport string) bool {
	return transport == manifest.TransportOCI || transport == manifest.TransportOCIArchive
}

func parseSaveDestination(s string) (saveDestination, error) {
	if s == "-" {
		return saveDestination{transport: manifest.TransportDockerArchive}, nil
	}
	word, _, colon := strings.Cut(s, ":")
	if s == "" || strings.HasSuffix(s, "/") || colon && !strings.Contains(word, "/") && !isSaved(word) {
		return saveDestination{}, withRemedy(usagef("--output %q names no file and no folder of a known form", s),
			"write FILE.tar, oci:DIR, oci-archive:FILE, docker-archive:FILE or dir:DIR")
	}
	if !colon || !isSaved(word) {
		s = manifest.TransportDockerArchive + ":" + s
	}
	ref, err := manifest.ParseReference(s)
	if err != nil {
		return saveDestination{}, fmt.Errorf("--output: %w", err)
	}
	if strings.HasPrefix(ref.Within(), "@") {
		return saveDestination{}, withRemedy(usagef("--output: %q is no name to give", ref.Within()), "write a name or tag, or leave it out")
	}
	return saveDestination{ref.Transport(), ref.Location(), ref.Within()}, nil
}

// isSaved reports whether images are saved in that form.
func isSaved(transport string) bool {
	switch transport {
	case manifest.TransportOCI, manifest.TransportOCIArchive, manifest.TransportDockerArchive, manifest.TransportDir:
		return true
	}
	return false
}

// savedName is what an image is called where it is saved to.
type savedName struct {
	ref   string                // in a layout; "" for none
	tag   reference.NamedTagged // in an archive of docker save; nil for none
	image string                // tag in full, if that is where the image is from
	given bool                  // by the user, for the destination
}

// names are that of the destination, or else that of the reference, or else
// known, what the image is called in its place on this machine.
func (j saveJob) names(ref manifest.Reference, known []string) []savedName {
	within := ref.Within()
	switch {
	case j.to.name != "":
		return []savedName{{ref: j.to.name, tag: tagged(j.to.name), given: true}}
	case ref.Transport() == "":
		t, ok := ref.Named().(reference.NamedTagged)
		if !ok {
			return nil
		}
		return []savedName{j.called(t)}
	case within != "" && !strings.HasPrefix(within, "@"):
		known = []string{within}
	}
	var names []savedName
	for _, name := range known {
		t := tagged(name)
		switch {
		case strings.HasPrefix(name, "@"): // a number or digest
		// A tag alone would be the name of an image of the hub.
		case isLayout(ref.Transport()) && !strings.ContainsAny(name, "/:"):
			names = append(names, savedName{ref: name})
		// But for whole names, which may be there beside a tag.
		case isLayout(ref.Transport()) && (name == within || t == nil || t.String() != name):
			names = append(names, savedName{ref: name, tag: t})
		case t != nil:
			names = append(names, j.called(t, names...))
		}
	}
	return names
}

// called is an image's name: in a layout its tag, or all of it if there are
// several images, or if it has that tag by one of its other names.
func (j saveJob) called(t reference.NamedTagged, others ...savedName) savedName {
	n := savedName{ref: t.Tag(), tag: untilTag(t)}
	n.image = n.tag.String()
	if len(j.refs) > 1 || slices.ContainsFunc(others, func(o savedName) bool { return o.ref == n.ref }) {
		n.ref = reference.FamiliarString(n.tag)
	}
	return n
}

// tagged is a name with its tag; nil if it is none.
func tagged(name string) reference.NamedTagged {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil
	}
	t, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil
	}
	return untilTag(t)
}

// untilTag is a name without the digest that may follow its tag.
func untilTag(t reference.NamedTagged) reference.NamedTagged {
	trimmed, err := reference.WithTag(reference.TrimNamed(t), t.Tag())
	if err != nil {
		return t
	}
	return trimmed
}

// savePlace is an open destination. All is written beside what will be its
// name, which finish gives it.
type savePlace struct {
	saver
	temp, path string   // "" for what is written in place
	file       *os.File // temp, of an archive
	workers    int      // blobs that are written at once
}

// open begins to write; finish must be called.
func (d saveDestination) open(stdout io.Writer) (*savePlace, error) {
	if d.path == "" {
		return &savePlace{saver: archiveSaver{dockersave.NewArchive(stdout)}, workers: 1}, nil
	}
	p := &savePlace{path: d.path, workers: 1}
	if real, err := filepath.EvalSymlinks(d.path); err == nil {
		p.path = real // a link stays what it is
	}
	p.temp = filepath.Join(filepath.Dir(p.path), "."+filepath.Base(p.path)+".peel-"+rand.Text())
	var err error
	switch d.transport {
	case manifest.TransportOCI:
		err = p.openLayout()
	case manifest.TransportDir:
		err = p.openDir()
	default:
		err = p.openFile(d.transport)
	}
	if err != nil {
		return nil, d.fail(err)
	}
	return p, nil
}

// fail names the destination, and not the file that is written beside it.
func (d saveDestination) fail(err error) error {
	var on *fs.PathError
	if errors.As(err, &on) {
		err = on.Err
	}
	return fmt.Errorf("%s: %w", d, err)
}

func (p *savePlace) openFile(transport string) error {
	if fi, err := os.Stat(p.path); err == nil && !fi.Mode().IsRegular() {
		return withRemedy(usagef("it is there and no file"), "name a file, or use oci:DIR or dir:DIR")
	}
	f, err := os.OpenFile(p.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	p.file, p.saver = f, archiveSaver{dockersave.NewArchive(f)}
	if transport == manifest.TransportOCIArchive {
		p.saver = ociArchiveSaver{dockersave.NewOCIArchive(f)}
	}
	return nil
}

// openLayout writes into a layout that is there, as its blobs are of no harm
// before an index names them.
func (p *savePlace) openLayout() error {
	dir := p.temp
	if _, err := os.Lstat(p.path); err == nil {
		dir, p.temp = p.path, ""
	}
	l, err := ocilayout.Open(dir)
	if err != nil {
		return errors.Join(err, p.discard())
	}
	p.saver, p.workers = layoutSaver{l}, convertLayers
	return nil
}

func (p *savePlace) openDir() error {
	names, err := os.ReadDir(p.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return withRemedy(usagef("the folder is not empty"), "name another, or remove it")
	}
	if err := os.Mkdir(p.temp, 0o777); err != nil {
		return err
	}
	p.saver, p.workers = dirSaver{dockersave.NewDir(p.temp)}, convertLayers
	return nil
}

// finish ends what was written and gives it its name; or drops it, if err says
// that it is not whole.
func (p *savePlace) finish(ctx context.Context, err error) error {
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = p.saver.Close()
	}
	if p.file != nil {
		if err == nil {
			err = p.file.Sync()
		}
		err = errors.Join(err, p.file.Close())
	}
	if p.temp == "" {
		return err
	}
	if fi, there := os.Lstat(p.path); err == nil && p.file == nil && there == nil && fi.IsDir() {
		err = os.Remove(p.path) // an empty folder gives way; what has come meanwhile does not
	}
	if err == nil {
		err = os.Rename(p.temp, p.path)
	}
	if err != nil {
		return errors.Join(err, p.discard())
	}
	return syncFolder(filepath.Dir(p.path))
}

func (p *savePlace) discard() error {
	if p.temp == "" {
		return nil
	}
	return os.RemoveAll(p.temp)
}

// syncFolder makes a name in a folder last.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync() // not every file system can
	return nil
}
