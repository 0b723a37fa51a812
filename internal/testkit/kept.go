//go:build linux

package testkit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Kept is an image layout of a single image, tagged "latest", that is built
// once per machine and kept between runs. The recipe must change with whatever
// changes the image: it is part of the name. Build fills the layout, and may
// take as long as it needs.
func Kept(t testing.TB, name, recipe string, build func(ctx context.Context, l *Layout) error) string {
	t.Helper()
	sum := sha256.Sum256([]byte(recipe))
	dir := filepath.Join(store(), fmt.Sprintf("%s-%x", name, sum[:6]))
	err := locked(dir, func() error {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		tmp := dir + ".building" // may be there still from a run that was killed
		if err := os.RemoveAll(tmp); err != nil {
			return err
		}
		l, err := NewLayout(tmp)
		if err == nil {
			err = build(t.Context(), l)
		}
		if err == nil {
			err = os.Rename(tmp, dir)
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(tmp))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("image %s: %v", name, err)
	}
	return dir
}
