package convert

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
)

// splitter passes a tar on and notes what podman needs, besides the files, to
// put the very same tar together again. One goroutine of its own reads the tar;
// finish waits for it.
type splitter struct {
	io.ReadCloser
	done   <-chan error
	packed bytes.Buffer
	enc    *zstd.Encoder
	json   *sums // before compression
}

func newSplitter(in io.Reader) (*splitter, error) {
	s := &splitter{}
	var err error
	if s.enc, err = newEncoder(&s.packed); err != nil {
		return nil, err
	}
	s.json = newSums(s.enc)
	s.ReadCloser, s.done, err = asm.NewInputTarStreamWithDone(in, storage.NewJSONPacker(s.json), storage.NewDiscardFilePutter())
	if err != nil {
		return nil, errors.Join(err, s.enc.Close())
	}
	return s, nil
}

// finish ends the pass; err is why it ends before the tar does.
func (s *splitter) finish(err error) error {
	closed := s.Close()
	if done := <-s.done; err == nil {
		err = errors.Join(closed, done)
	}
	return errors.Join(err, s.enc.Close())
}

func (s *splitter) digest() digest.Digest { return digest.FromBytes(s.packed.Bytes()) }
