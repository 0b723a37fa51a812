package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxLog bounds the log of one server, bytes.
	maxLog = 8 << 20
	// maxLogName is how much of a mount point its log's name repeats, bytes.
	maxLogName = 80
)

// logPath is where the server of the mount on dir logs.
func logPath(cacheDir, dir string) string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
			return r
		}
		return '-'
	}, dir), "-")
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(cacheDir, "log", name[max(0, len(name)-maxLogName):]+"-"+hex.EncodeToString(sum[:4])+".log")
}

// openLog opens the log of the mount on dir for appending.
func openLog(cacheDir, dir string) (*os.File, error) {
	path := logPath(cacheDir, dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// boundedLog begins a log file anew when it has grown too long. The file must
// be open for appending.
type boundedLog struct{ f *os.File }

func (b *boundedLog) Write(p []byte) (int, error) {
	if fi, err := b.f.Stat(); err == nil && fi.Mode().IsRegular() && fi.Size()+int64(len(p)) > maxLog {
		if err := b.f.Truncate(0); err != nil {
			return 0, err
		}
	}
	return b.f.Write(p)
}
