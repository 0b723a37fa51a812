//go:build !linux

package cache

import "os"

// lockRange allows everything: at worst two processes fetch the same span.
func lockRange(*os.File, int64, int64) (bool, error) { return true, nil }

func unlockRange(*os.File, int64, int64) error { return nil }
