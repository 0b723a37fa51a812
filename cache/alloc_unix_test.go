//go:build unix

package cache

import (
	"os"
	"syscall"
	"testing"
)

// allocated returns how many bytes f occupies on disk.
func allocated(t *testing.T, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%T", fi.Sys())
	}
	return st.Blocks * 512
}
