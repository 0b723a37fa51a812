//go:build !unix

package local

import "os"

// stamp is what tells that a file has been changed.
type stamp struct {
	size, nanoseconds int64
}

func stampOf(f *os.File, _ uintptr) (stamp, error) {
	fi, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	return stamp{fi.Size(), fi.ModTime().UnixNano()}, nil
}
