package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/sentinel"
)

// ErrInUse: a process reads, fills or streams the layer.
var ErrInUse = sentinel.New("in use", errdefs.ErrFailedPrecondition)

// RemoveStore deletes the data of a layer, be it whole, in part or interrupted,
// and returns how many bytes of disk that frees. It is no error if there is
// none; it is ErrInUse, and nothing is deleted, while anybody has it open.
func (c *Cache) RemoveStore(key digest.Digest) (freed int64, err error) {
	dir, err := c.layerDir(key)
	if err == nil {
		freed, err = removeLayer(dir)
	}
	if err != nil {
		return 0, fmt.Errorf("cached layer %s: %w", key, err)
	}
	return freed, nil
}

func removeLayer(dir string) (freed int64, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil // a lock would create it
	}
	unlock, err := lockIdle(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	for _, name := range []string{"have", "data", "have" + newSuffix, "data" + newSuffix, "stage.notes", "stage", "claims"} {
		n, err := removeSized(filepath.Join(dir, name))
		if err != nil {
			return freed, err
		}
		freed += n
	}
	// Who waits for a lock begins anew, and may do so before the folder is gone:
	// from here on, what else is in it is another's. Windows keeps what is open.
	for _, path := range []string{filepath.Join(dir, "stage.lock"), filepath.Join(dir, "lock"), dir} {
		_ = os.Remove(path)
	}
	return freed, nil
}

// lockIdle locks the folder of a layer that nobody uses.
func lockIdle(dir string) (unlock func() error, err error) {
	lock, err := attempt(filepath.Join(dir, "lock"))
	if lock == nil {
		return nil, errors.Join(err, inUse(err))
	}
	held := []*os.File{lock}
	unlock = func() error {
		var errs []error
		for _, f := range held {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	stage, err := attempt(filepath.Join(dir, "stage.lock"))
	if stage == nil {
		return nil, errors.Join(err, inUse(err), unlock())
	}
	held = append(held, stage)
	have, err := os.OpenFile(filepath.Join(dir, "have"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return unlock, nil
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	// A Store holds it shared as long as it is open.
	held = append(held, have)
	idle, err := tryLock(have)
	if !idle {
		return nil, errors.Join(err, inUse(err), unlock())
	}
	return unlock, nil
}

// inUse is why a lock was not got, if not for err.
func inUse(err error) error {
	if err != nil {
		return nil
	}
	return ErrInUse
}

// Free removes a document and returns how many bytes of disk that frees. It is
// no error if there is none.
func (c *Cache) Free(kind string, key digest.Digest) (int64, error) {
	path, err := c.document(kind, key)
	var freed int64
	if err == nil {
		freed, err = removeSized(path)
	}
	if err != nil {
		return 0, docError(kind, key, err)
	}
	return freed, nil
}

// removeSized removes a file that may not be there, and returns what it took.
func removeSized(path string) (int64, error) {
	fi, err := os.Lstat(path)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return diskBytes(fi), nil
}

// Keys returns the digests of all documents of a kind.
func (c *Cache) Keys(kind string) ([]digest.Digest, error) {
	folder, name, err := docFolder(kind)
	if err != nil {
		return nil, docError(kind, "", err)
	}
	folder = filepath.Join(c.dir, folder)
	var out []digest.Digest
	algorithms, err := os.ReadDir(folder)
	for _, a := range algorithms {
		entries, rerr := os.ReadDir(filepath.Join(folder, a.Name()))
		err = errors.Join(err, rerr)
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.Algorithm(a.Name()), e.Name())
			if d.Validate() != nil {
				continue
			}
			if _, err := os.Lstat(filepath.Join(folder, a.Name(), e.Name(), name)); err == nil {
				out = append(out, d)
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, docError(kind, "", err)
	}
	return out, nil
}

// Stored tells which spans of a layer are kept, including those that a reboot
// has put in doubt, without opening its store: io/fs.ErrNotExist if there is
// none of this size.
func (c *Cache) Stored(key digest.Digest, size int64, spans int) (has func(span int) bool, err error) {
	dir, err := c.layerDir(key)
	var words []uint64
	if err == nil && (spans < 0 || spans > maxSpans) {
		err = errdefs.ErrInvalidArgument
	}
	if err == nil {
		words, err = readWords(filepath.Join(dir, "have"), haveWords(spans))
	}
	if err != nil {
		return nil, fmt.Errorf("cached layer %s: %w", key, err)
	}
	h, err := viewHave(words, size, spans)
	if err != nil {
		return nil, fmt.Errorf("cached layer %s: %w: %w", key, fs.ErrNotExist, err)
	}
	return func(span int) bool {
		return span >= 0 && span < spans && allSet(h.present, span, span+1)
	}, nil
}
