package local

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is a tar file whose members are read where they lie.
type archive struct {
	from  io.ReaderAt
	owner io.Closer
	table table
}

// table says where the members of a tar lie, by cleaned name.
type table map[string]member

// member is a regular file, or a link, of an archive.
type member struct {
	kind      kind
	off, size int64  // of a regular file
	target    string // of a link
}

// unique are the names that decide what images there are.
func unique() []string {
	return []string{manifestFile, repositoriesFile, ocispec.ImageIndexFile, ocispec.ImageLayoutFile}
}

type kind byte

const (
	regular kind = iota
	symlink
	hardlink // target is cleaned
	sparse   // a regular file that does not lie in one piece
	repeated // a document that is there twice
)

// openArchive opens the tar file at, unpacking it if it is compressed.
func openArchive(ctx context.Context, at string, o Options) (*archive, error) {
	fi, err := os.Stat(at)
	if err != nil {
		return nil, missing(err)
	}
	if !fi.Mode().IsRegular() { // opening a named pipe would not return
		hint := ""
		if fi.IsDir() {
			hint = "; write docker-dir:DIR, oci:DIR or dir:DIR for a folder"
		}
		return nil, fmt.Errorf("%w: it is not a regular file%s", ErrMalformed, hint)
	}
	f, err := os.Open(at)
	if err != nil {
		return nil, err
	}
	h, err := hold(f, at)
	if err != nil {
		return nil, err
	}
	a, err := readArchive(ctx, h, o)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return a, nil
}

func readArchive(ctx context.Context, h *held, o Options) (*archive, error) {
	a := &archive{from: h, owner: h}
	size := h.was.size
	packed, err := compressionOf(io.NewSectionReader(h, 0, size))
	if err != nil {
		return nil, err
	}
	if packed != plain {
		tmp, err := unpack(ctx, h, packed, o)
		if err != nil {
			return nil, err
		}
		a.from, a.owner, size = tmp, tmp, tmp.was.size
	}
	if a.table, err = scan(ctx, a.from, size); err != nil {
		if packed != plain {
			err = errors.Join(err, a.owner.Close())
		}
		return nil, err
	}
	if packed != plain {
		// What was unpacked stands on its own.
		if err := h.Close(); err != nil {
			return nil, errors.Join(err, a.owner.Close())
		}
	}
	return a, nil
}

// scan reads the headers of a tar of size bytes, and nothing of its data.
func scan(ctx context.Context, at io.ReaderAt, size int64) (table, error) {
	in := &seeker{io.NewSectionReader(at, 0, size), ctx.Err}
	headers := tar.NewReader(in)
	found := table{}
	names := 0
	for count := 0; ; count++ {
		h, err := headers.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		off, seekErr := in.Seek(0, io.SeekCurrent)
		if err = errors.Join(err, seekErr); err != nil {
			return nil, unreadable(ctx, err, off, count)
		}
		if count == maxEntries {
			return nil, fmt.Errorf("%w: entry %s: more than %d entries", ErrMalformed, quote(h.Name), maxEntries)
		}
		if names += len(h.Name) + len(h.Linkname); names > maxNames {
			return nil, fmt.Errorf("%w: entry %s: the names of entries have more than %d bytes", ErrMalformed, quote(h.Name), maxNames)
		}
		if err := found.add(h, off, size); err != nil {
			return nil, err
		}
	}
}

// seeker is a reader that passes data by.
type seeker struct {
	*io.SectionReader
	alive func() error
}

func (s *seeker) Read(p []byte) (int, error) {
	if err := s.alive(); err != nil {
		return 0, err
	}
	return s.SectionReader.Read(p)
}

// unreadable explains why there is no header before off.
func unreadable(ctx context.Context, err error, off int64, count int) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, tar.ErrHeader) && count == 0:
		return fmt.Errorf("%w: it is not a tar archive", ErrMalformed)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return fmt.Errorf("%w: entry %d, before byte %d: the header is damaged", ErrMalformed, count+1, off)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends within entry %d; copy or save it again", ErrMalformed, count+1)
	}
	return err
}

// add takes a header whose data begins at off of a tar of size bytes.
func (t table) add(h *tar.Header, off, size int64) error {
	bad := func(wrong string) error {
		return fmt.Errorf("%w: entry %s: %s", ErrMalformed, quote(h.Name), wrong)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, wrong := clean(h.Name)
	if wrong != "" {
		return bad(wrong)
	}
	m := member{off: off, size: h.Size}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont:
		if isSparse(h) {
			m.kind = sparse
			break
		}
		if h.Size < 0 || h.Size > size-off {
			return bad(fmt.Sprintf("it has %d bytes, and the archive ends after %d; copy or save it again", h.Size, size-off))
		}
	case tar.TypeGNUSparse:
		m.kind = sparse
	case tar.TypeSymlink:
		if len(h.Linkname) > maxName {
			return bad(fmt.Sprintf("it is a link to a name of %d bytes, more than %d", len(h.Linkname), maxName))
		}
		m = member{kind: symlink, target: h.Linkname}
	case tar.TypeLink:
		target, wrong := clean(h.Linkname)
		if wrong != "" {
			return bad("it is a link to " + quote(h.Linkname) + ": " + wrong)
		}
		m = member{kind: hardlink, target: target}
	default: // folders, and devices and the like, which images do not consist of
		return nil
	}
	// The last of several wins, as for tar. Of these there may be only one: two
	// programs could read two images from it.
	if _, twice := t[name]; twice && slices.Contains(unique(), name) {
		m.kind = repeated
	}
	t[name] = m
	return nil
}

func isSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (a *archive) open(name string) (*file, error) {
	at, m, err := a.table.find(name)
	if err != nil {
		return nil, err
	}
	return &file{ReaderAt: io.NewSectionReader(a.from, m.off, m.size), name: at, size: m.size}, nil
}

// find follows links to a regular file, within the archive.
func (t table) find(name string) (string, member, error) {
	bad := func(wrong string) (string, member, error) {
		return "", member{}, fmt.Errorf("%w: entry %s: %s", ErrMalformed, quote(name), wrong)
	}
	cleaned, wrong := clean(name)
	if wrong != "" {
		return bad(wrong)
	}
	todo, done, links := strings.Split(cleaned, "/"), "", 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps == maxSteps {
			return bad(fmt.Sprintf("it leads over more than %d folders", maxSteps))
		}
		next := todo[0]
		todo = todo[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			if done == "" {
				return bad("its links lead out of the archive")
			}
			if done = path.Dir(done); done == "." {
				done = ""
			}
			continue
		}
		at := path.Join(done, next)
		m := t[at]
		if m.kind != symlink && m.kind != hardlink {
			done = at
			continue
		}
		if links++; links > maxLinks {
			return bad(fmt.Sprintf("it leads over more than %d links, or in a circle", maxLinks))
		}
		if strings.HasPrefix(m.target, "/") {
			return bad("it is a link to " + quote(m.target) + ", out of the archive")
		}
		if m.kind == hardlink {
			done = ""
		}
		todo = append(strings.Split(m.target, "/"), todo...)
	}
	m, ok := t[done]
	switch {
	case !ok:
		return "", member{}, &fs.PathError{Op: "open", Path: quote(name), Err: fs.ErrNotExist}
	case m.kind == sparse:
		return bad("it is sparse and so not in one piece; make the archive again without --sparse")
	case m.kind == repeated:
		return bad("it is there twice")
	}
	return done, m, nil
}

func (a *archive) folders() ([]string, error) {
	found := map[string]bool{}
	for name := range a.table {
		if top, _, ok := strings.Cut(name, "/"); ok {
			found[top] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func (a *archive) Close() error { return a.owner.Close() }
