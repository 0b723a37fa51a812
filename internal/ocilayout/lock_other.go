//go:build !unix

package ocilayout

import (
	"errors"
	"fmt"
)

// locked: without flock two writers would lose each other's tags.
func (l *Layout) locked(func() error) error {
	return fmt.Errorf("writing layouts on this system: %w", errors.ErrUnsupported)
}
