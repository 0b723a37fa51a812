package sentinel

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/containerd/errdefs"
)

func TestNew(t *testing.T) {
	t.Parallel()
	gone := New("gone", fs.ErrNotExist, errdefs.ErrNotFound)
	err := fmt.Errorf("layer 3: %w", gone)
	if got := err.Error(); got != "layer 3: gone" {
		t.Errorf("it reads %q", got)
	}
	for _, class := range []error{gone, fs.ErrNotExist, errdefs.ErrNotFound} {
		if !errors.Is(err, class) {
			t.Errorf("it is no %v", class)
		}
	}
	if errors.Is(err, errdefs.ErrDataLoss) || errors.Is(New("gone", fs.ErrNotExist), gone) {
		t.Error("it is what it should not be")
	}
}
