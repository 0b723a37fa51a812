//go:build unix

package cache

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// The method set that package layer asks of a stage that can be gone on with.
var _ interface {
	io.Writer
	io.ReaderAt
	Commit(size int64, spans int) error
	Close() error
	Notes() (notes []byte, size int64, err error)
	Note(note []byte) error
	Rewind(size int64, notes []byte) error
} = (*Stage)(nil)

func write(t *testing.T, g *Stage, p []byte) {
	t.Helper()
	if n, err := g.Write(p); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
}

func addNote(t *testing.T, g *Stage, text string) {
	t.Helper()
	if err := g.Note([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func closeStage(t *testing.T, g *Stage) {
	t.Helper()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantNotes checks what an interrupted pass left.
func wantNotes(t *testing.T, g *Stage, text string, size int64) {
	t.Helper()
	notes, n, err := g.Notes()
	if err != nil || string(notes) != text || n != size {
		t.Fatalf("%q, %d, %v; want %q, %d", notes, n, err, text, size)
	}
}

// wantStaged checks that ReadAt yields data and then the end.
func wantStaged(t *testing.T, r io.ReaderAt, data []byte) {
	t.Helper()
	p := make([]byte, len(data)+1)
	if n, err := r.ReadAt(p, 0); n != len(data) || !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], data) {
		t.Fatalf("ReadAt: %d of %d, %v", n, len(data), err)
	}
}

func wantNames(t *testing.T, c *Cache, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, names(t, c)); diff != "" {
		t.Error(diff)
	}
}

func TestStageGoesOn(t *testing.T) {
	t.Parallel()
	data, zeros := bytes.Repeat([]byte{7}, 3*holeSize), make([]byte, 3*holeSize)
	for _, tt := range []struct {
		name                 string
		noted, lost, resumed []byte
	}{
		{"nothing lost", data, nil, data},
		{"data lost", data, data, data},
		{"zeros before the note", append(data, zeros...), data, data},
		{"zeros after the note", data, zeros, data},
		{"nothing but zeros", zeros, zeros, zeros},
		{"zeros where data was lost", data, data, zeros},
		{"off the grid", data[:100], zeros, zeros[:5000]},
		{"nothing to add", data, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t)
			g := openStage(t, c)
			wantNotes(t, g, "", 0)
			write(t, g, tt.noted)
			addNote(t, g, "one\n")
			write(t, g, tt.lost)
			wantStaged(t, g, append(bytes.Clone(tt.noted), tt.lost...))
			closeStage(t, g)
			wantNames(t, c, "stage", "stage.lock", "stage.notes")

			g = openStage(t, c)
			notes, n, err := g.Notes()
			if err != nil || string(notes) != "one\n" || n < int64(len(tt.noted)) {
				t.Fatalf("%q, %d, %v", notes, n, err)
			}
			if err := g.Rewind(int64(len(tt.noted)), notes); err != nil {
				t.Fatal(err)
			}
			wantStaged(t, g, tt.noted)
			write(t, g, tt.resumed)
			addNote(t, g, "two\n")
			want := append(bytes.Clone(tt.noted), tt.resumed...)
			wantNotes(t, g, "one\ntwo\n", int64(len(want)))
			wantStaged(t, g, want)
			if err := g.Commit(int64(len(want)), 1); err != nil {
				t.Fatal(err)
			}
			wantNames(t, c, "data", "have", "lock", "stage.lock")
			wantStaged(t, g, want)
			l := layout{0, int64(len(want))}
			if p, ok, err := l.read(openStore(t, c, l), 0, 1); !ok || err != nil || !bytes.Equal(p, want) {
				t.Errorf("%v, %v", ok, err)
			}
			closeStage(t, g)
			wantNames(t, c, "data", "have", "lock", "stage.lock")
		})
	}
}

// Who does not ask for what an interrupted pass left must not meet it.
func TestStageForgets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		begin func(g *Stage) error
	}{
		{"Write", func(g *Stage) error { _, err := g.Write(nil); return err }},
		{"Note", func(g *Stage) error { return g.Note(nil) }},
		{"Rewind", func(g *Stage) error { return g.Rewind(0, nil) }},
		{"Commit of what is not there", func(g *Stage) error {
			if err := g.Commit(6, 1); !errdefs.IsInvalidArgument(err) {
				return errors.Join(errors.New("was committed"), err)
			}
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t)
			g := openStage(t, c)
			write(t, g, []byte("before"))
			addNote(t, g, "note\n")
			closeStage(t, g)

			g = openStage(t, c)
			wantStaged(t, g, []byte("before"))
			if err := tt.begin(g); err != nil {
				t.Fatal(err)
			}
			wantNotes(t, g, "", 0)
			write(t, g, []byte("new"))
			wantStaged(t, g, []byte("new"))
			closeStage(t, g)
			wantNames(t, c, "stage.lock")
		})
	}
}

// A stage that is opened to look whether the layer is there meanwhile, or whose
// pass fails before it begins, keeps what was left.
func TestStageKeepsWhatNobodyTouched(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	write(t, g, []byte("before"))
	addNote(t, g, "note\n")
	closeStage(t, g)
	closeStage(t, openStage(t, c))
	wantNotes(t, openStage(t, c), "note\n", 6)
}

func TestStageRewindToNowhere(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	write(t, g, []byte("123456"))
	for _, size := range []int64{-1, 7, 1 << 62} {
		if err := g.Rewind(size, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Rewind(%d): %v", size, err)
		}
	}
	wantStaged(t, g, []byte("123456"))
	if err := g.Rewind(3, []byte("other, and longer\n")); err != nil {
		t.Fatal(err)
	}
	write(t, g, []byte("x"))
	wantStaged(t, g, []byte("123x"))
	wantNotes(t, g, "other, and longer\n", 4)
	for _, off := range []int64{-1, 4, 1 << 62} {
		if n, err := g.ReadAt(make([]byte, 1), off); n != 0 || err == nil {
			t.Errorf("ReadAt(%d): %d, %v", off, n, err)
		}
	}
}

func TestStageTornNote(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	for _, note := range []string{"one\n", "two\n", "three\n"} {
		write(t, g, []byte("12345678"))
		addNote(t, g, note)
	}
	closeStage(t, g)
	dir, err := c.layerDir(testKey())
	if err != nil {
		t.Fatal(err)
	}
	cut("stage.notes", int64(len("one\ntwo\nth")))(t, dir)

	g = openStage(t, c)
	wantNotes(t, g, "one\ntwo\nth", 24)
	if err := g.Rewind(16, []byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	write(t, g, []byte("x"))
	addNote(t, g, "four\n")
	closeStage(t, g)
	wantNotes(t, openStage(t, c), "one\ntwo\nfour\n", 17)
}

func TestStageTooManyNotes(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	write(t, g, []byte("12345678"))
	addNote(t, g, "one\n")
	closeStage(t, g)
	dir, err := c.layerDir(testKey())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "stage.notes")
	if err := os.Truncate(path, maxNotes-1); err != nil {
		t.Fatal(err)
	}
	g = openStage(t, c)
	if err := g.notes.add([]byte("xx")); err != nil || g.notes.n != maxNotes-1 {
		t.Errorf("%d, %v", g.notes.n, err)
	}
	if err := g.notes.add([]byte("x")); err != nil || g.notes.n != maxNotes {
		t.Errorf("%d, %v", g.notes.n, err)
	}
}

// A process killed within Commit leaves notes without a stage.
func TestStageNotesAlone(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	write(t, g, []byte("12345678"))
	addNote(t, g, "one\n")
	closeStage(t, g)
	dir, err := c.layerDir(testKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "stage")); err != nil {
		t.Fatal(err)
	}
	g = openStage(t, c)
	wantNotes(t, g, "one\n", 0)
	closeStage(t, g)
	wantNames(t, c, "stage.lock")
}

func TestStageCommittedOrClosed(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	write(t, g, []byte("12345678"))
	if err := g.Commit(8, 1); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"committed", "closed"} {
		_, writeErr := g.Write(nil)
		_, _, notesErr := g.Notes()
		for _, err := range []error{writeErr, notesErr, g.Note(nil), g.Rewind(0, nil), g.Commit(8, 1)} {
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %v", state, err)
			}
		}
		closeStage(t, g)
	}
	if _, err := g.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// An evictor's hole must not be taken for the layer's bytes.
func TestStageKeepsEvictorsAway(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	write(t, g, []byte("12345678"))
	if err := g.Commit(8, 1); err != nil {
		t.Fatal(err)
	}
	l := layout{0, 8}
	s := openStore(t, c, l)
	if locked, err := tryLock(s.data); locked || err != nil {
		t.Errorf("before Close: %v, %v", locked, err)
	}
	closeStage(t, g)
	if locked, err := tryLock(s.data); !locked || err != nil {
		t.Errorf("after Close: %v, %v", locked, err)
	}
}

func TestStageReadWhileWritten(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(200, 3*holeSize)
	want := l.bytes(0, l.spans())
	clear(want[l[50]:l[100]])
	g := openStage(t, c)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			p := make([]byte, len(want))
			for last := false; !last; {
				select {
				case <-done:
					last = true
				default:
				}
				n, err := g.ReadAt(p, 0)
				if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], want[:n]) || last && n != len(want) {
					t.Errorf("%d bytes: %v", n, err)
					return
				}
			}
		})
	}
	for span := range l.spans() {
		if _, err := g.Write(want[l[span]:l[span+1]]); err != nil {
			t.Error(err)
		}
	}
	if err := g.Commit(l.size(), l.spans()); err != nil {
		t.Error(err)
	}
	close(done)
	wg.Wait()
}

// passes is a stage under test and what it should hold.
type passes struct {
	t     *testing.T
	c     *Cache
	g     *Stage
	r     *rand.Rand
	data  []byte
	notes []byte
	at    []int // where the notes were made
	ends  []int // of the notes
}

func (s *passes) write() {
	p := make([]byte, s.r.IntN(3*holeSize))
	if s.r.IntN(2) == 0 {
		for i := range p {
			p[i] = byte(s.r.IntN(3))
		}
	}
	s.data = append(s.data, p...)
	write(s.t, s.g, p)
}

func (s *passes) note() {
	if len(s.data) == 0 {
		return // there is nothing to go on with
	}
	note := bytes.Repeat([]byte{byte('a' + s.r.IntN(26))}, 1+s.r.IntN(100))
	s.notes = append(s.notes, note...)
	s.at, s.ends = append(s.at, len(s.data)), append(s.ends, len(s.notes))
	addNote(s.t, s.g, string(note))
}

// interrupt closes the stage, and goes on at one of the notes.
func (s *passes) interrupt() {
	closeStage(s.t, s.g)
	s.g = openStage(s.t, s.c)
	if len(s.at) == 0 {
		wantNotes(s.t, s.g, "", 0)
		s.data = nil
		return
	}
	notes, n, err := s.g.Notes()
	if err != nil || !bytes.Equal(notes, s.notes) || n < int64(s.at[len(s.at)-1]) {
		s.t.Fatalf("%d, %v", n, err)
	}
	i := s.r.IntN(len(s.at))
	s.at, s.ends = s.at[:i+1], s.ends[:i+1]
	s.data, s.notes = s.data[:s.at[i]], s.notes[:s.ends[i]]
	if err := s.g.Rewind(int64(s.at[i]), s.notes); err != nil {
		s.t.Fatal(err)
	}
}

func TestStageRandomPasses(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		c := openCache(t)
		s := &passes{t: t, c: c, g: openStage(t, c), r: rand.New(rand.NewPCG(seed, 0))}
		for range 200 {
			switch s.r.IntN(12) {
			case 0:
				s.interrupt()
			case 1, 2:
				s.note()
			default:
				s.write()
			}
			wantStaged(t, s.g, s.data)
		}
		l := layout{0, int64(len(s.data))}
		if err := s.g.Commit(l.size(), 1); err != nil {
			t.Fatal(err)
		}
		if p, ok, err := l.read(openStore(t, c, l), 0, 1); !ok || err != nil || !bytes.Equal(p, s.data) {
			t.Errorf("%v, %v", ok, err)
		}
		closeStage(t, s.g)
	}
}
