package layer

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer/inflate"
)

// notesVersion changes with every change of a note or of how layers are cut.
const notesVersion = 2

// Between two notes lie at least noteEvery bytes of the address space, and one
// in noteShare of as many as the blob has, so that notes of a large layer stay
// small.
const (
	noteEvery = 1 << 20
	noteShare = 64
)

// note is what a pass leaves at an entrance, so that a later one can go on. It
// is written as a line, behind the digest of the line before and of itself: the
// digests of blob and tar, which have to match in the end, would not tell of an
// entrance that a crash has garbled.
type note struct {
	Version   int           `json:"version"`
	Blob      digest.Digest `json:"blob"`
	Format    FormatID      `json:"format"`
	Entrances []entrance    `json:"entrances"` // from the one of the note before to the one to go on at
	Window    []byte        `json:"window"`    // of the latter, whole
	BlobHash  hashState     `json:"blob_hash"`
}

// note returns what to keep at the last entrance; nil if a pass cannot go on
// there, or it is too near the one before.
func (s *streaming) note(in *inflater, sum hashState) []byte {
	at := s.entrances[len(s.entrances)-1]
	last := max(s.noted-1, 0)
	if _, ok := s.options.Stage.(Resumable); !ok || at.Frame != 0 || sum.Hash == nil || at.Out-s.entrances[last].Out < max(noteEvery, s.src.Size()/noteShare) {
		return nil
	}
	passed := slices.DeleteFunc(slices.Clone(s.entrances[last:]), func(e entrance) bool { return e.Frame != 0 })
	line, err := json.Marshal(note{
		Version: notesVersion, Blob: s.blob, Format: in.format, Entrances: passed, Window: in.window(), BlobHash: sum,
	})
	if err != nil {
		return nil // a pass that cannot be resumed is no worse than before
	}
	s.noted = len(s.entrances)
	s.noteSum = chain(s.noteSum, line)
	return fmt.Appendf(nil, "%x %s\n", s.noteSum, line)
}

// chain returns the digest of a note that follows one with digest last.
func chain(last [32]byte, line []byte) [32]byte {
	return sha256.Sum256(append(last[:], line...))
}

// resumption is where a pass begins.
type resumption struct {
	off    int64     // in the blob
	hashed int64     // bytes of the blob that sum has taken
	sum    hash.Hash // of the blob
	format FormatID
	at     entrance
	window []byte      // at that entrance, whole
	stage  io.ReaderAt // has the address space up to that entrance

	entrances []entrance // up to and with that one
	noteSum   [32]byte   // of the note that tells it
}

// beginning is where a pass begins that no other one went before.
func (s *streaming) beginning() resumption {
	if r, ok := s.options.Stage.(Resumable); ok {
		if err := r.Rewind(0, nil); err != nil {
			s.options.Log.WithError(err).Warn("cannot forget an interrupted pass")
		}
	}
	return resumption{sum: s.blob.Algorithm().Hash()}
}

// forget discards what a pass left that did not end well.
func (s *streaming) forget() error {
	if r, ok := s.options.Stage.(Resumable); ok {
		return r.Rewind(0, nil)
	}
	return nil
}

// resumption returns where the last note says, or else the beginning.
func (s *streaming) resumption() resumption {
	st, ok := s.options.Stage.(Resumable)
	if !ok || s.diffID == "" {
		return s.beginning() // nothing but the diffID proves what was staged before
	}
	notes, staged, err := st.Notes()
	if err != nil {
		s.options.Log.WithError(err).Info("cannot go on where the layer's last pass ended")
		return s.beginning()
	}
	from := resumption{stage: st, entrances: []entrance{{}}}
	var blobHash hashState
	used := 0
	for rest := notes; ; {
		line, more, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok {
			break // the last one may be torn
		}
		text, told, _ := bytes.Cut(line, []byte{' '})
		sum := chain(from.noteSum, told)
		var n note
		if string(text) != hex.EncodeToString(sum[:]) || json.Unmarshal(told, &n) != nil || !s.follows(n, from.at, staged) {
			break
		}
		from.noteSum = sum
		from.entrances = append(from.entrances[:len(from.entrances)-1], n.Entrances...)
		from.at, from.window, from.format, blobHash = n.Entrances[len(n.Entrances)-1], n.Window, n.Format, n.BlobHash
		used += len(line) + 1
		rest = more
	}
	if from.sum = restore(s.blob.Algorithm(), blobHash); from.at.Out == 0 || from.sum == nil {
		return s.beginning()
	}
	from.off, from.hashed = from.at.In, blobHash.At
	if err := st.Rewind(from.at.Out, notes[:used]); err != nil {
		return s.beginning()
	}
	return from
}

// follows reports whether a note is one of this layer, and goes on from last.
func (s *streaming) follows(n note, last entrance, staged int64) bool {
	if n.Version != notesVersion || n.Blob != s.blob || !s.mayBe(n.Format) || len(n.Window) > inflate.WindowSize {
		return false
	}
	for i, e := range n.Entrances {
		if i == 0 && (e.In != last.In || e.Out != last.Out) || i > 0 && (e.Out <= last.Out || e.In < last.In) || e.Bit > 7 || e.Frame != 0 || len(e.Window) > maxPackedWindow {
			return false
		}
		last = e
	}
	return len(n.Entrances) > 1 && last.Out <= staged && last.In < s.src.Size() && n.BlobHash.At >= last.In && n.BlobHash.At <= s.src.Size()
}

// restore returns a hash with a state that was noted, nil if it is none.
func restore(a digest.Algorithm, state hashState) hash.Hash {
	sum := a.Hash()
	m, ok := sum.(encoding.BinaryUnmarshaler)
	if !ok || m.UnmarshalBinary(state.Hash) != nil {
		return nil
	}
	return sum
}

// mayBe reports whether a pass can be over a blob of the format.
func (s *streaming) mayBe(f FormatID) bool {
	if s.options.File != "" {
		return f == FormatFile
	}
	return f >= FormatTar && f <= FormatZstd
}

// open begins to decode the blob, which r yields from there on.
func (s *streaming) open(from resumption, r io.Reader) (*inflater, error) {
	at := from.at
	at.Window = from.window
	switch {
	case s.options.File != "":
		return newInflaterAt(r, s.src.Size(), FormatFile, at)
	case from.off == 0:
		return newInflater(r, s.src.Size())
	}
	return newInflaterAt(r, s.src.Size(), from.format, at)
}

// resident says why a layer cannot be read but from its beginning, "" if it
// can.
func (s *streaming) resident(es []entrance) string {
	for i, e := range es {
		end := s.size
		if i+1 < len(es) {
			end = es[i+1].Out
		}
		if n := end - e.Out; n > maxStretch {
			what := "blocks that need the ones before them"
			if s.format == FormatGzip {
				what = "a single block"
			}
			return fmt.Sprintf("the %s stream cannot be entered between %d and %d MiB: %s", s.format, e.Out>>20, end>>20, what)
		}
	}
	return ""
}
