package layer

import (
	"encoding/hex"
	"errors"

	"github.com/opencontainers/go-digest"
)

var errFileName = errors.New("a name that stands for something else")

// checkFile tells what is wrong with the path of a file that is a layer.
func checkFile(path string) error {
	p := newTarParser(nil)
	p.runFile(path, 0)
	return p.err
}

// runFile makes a layer of one file of size bytes at path, which is all of the
// address space.
func (p *tarParser) runFile(path string, size int64) {
	h := &Header{Name: path, Mode: typeRegular | 0o644, Size: size}
	if p.err = p.b.Add(h); p.err != nil {
		return
	}
	if p.b.lastAdded == None {
		p.err = malformed("%q: %w", clip(path), errFileName) // a whiteout
		return
	}
	if p.watch != nil {
		p.watch.Header(h)
	}
}

// sumFile gives the file the digest that its blob proved to have.
func (p *tarParser) sumFile(d digest.Digest) {
	sum, err := hex.DecodeString(d.Encoded())
	if err == nil && d.Algorithm() == digest.SHA256 {
		p.b.sums[p.b.lastAdded] = [32]byte(sum)
	}
}

// nowhere is a Stage that keeps nothing.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Commit(int64, int) error     { return nil }
func (nowhere) Close() error                { return nil }
