package layer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
)

// forms are blobs of one tar, by how they were compressed.
func compressedForms(t testing.TB, raw []byte) map[string][]byte {
	return map[string][]byte{
		"gzip":                 gzipped(t, raw),
		"gzip of many members": gzipped(t, cut(raw, 600<<10)...),
		"zstd of many frames":  zstded(t, cut(raw, 600<<10)...),
		// Without the zeros that end an archive, which need those of its header.
		"zstd of noise": zstded(t, tarOf(t, "noise", string(noise(6<<20-512, 9)))[:6<<20]),
		"tar":           raw,
	}
}

// Every span of a streamed layer can be decoded from its own bytes, and spans
// are short.
func TestSpansStandAlone(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{2 << 20, 100, 3 << 20, 1 << 20})
	for name, p := range compressedForms(t, raw) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := new(stage)
			x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaTar, nil), "", StreamOptions{Stage: st})
			if err != nil {
				t.Fatal(err)
			}
			if !x.seekable() || x.Resident() != "" || len(x.Spans) < 4 {
				t.Fatalf("%d spans, resident: %q", len(x.Spans), x.Resident())
			}
			for i, s := range x.Spans {
				if s.CLen >= int64(len(p))*2/3 || s.Len > 3<<20 {
					t.Errorf("span %d: %d bytes of the blob's %d, %d long", i, s.CLen, len(p), s.Len)
				}
			}
			if !bytes.Equal(addresses(t, x, &blob{bytes: p}), st.Bytes()) {
				t.Error("other bytes than were streamed")
			}
			if _, err := Decode(x.Encode()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A zstd frame that cannot be entered, and is long, is told to be so.
func TestResidentLayer(t *testing.T) {
	t.Parallel()
	line := []byte("the quick brown fox jumps over the lazy dog, again and again\n")
	raw := tarOf(t, "text", string(bytes.Repeat(line, maxStretch/len(line)+10_000)))
	p := zstded(t, raw)
	st := new(stage)
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaZstd, nil), "", StreamOptions{Stage: st})
	if err != nil {
		t.Fatal(err)
	}
	if x.seekable() || x.Resident() == "" || len(x.Spans) < 8 {
		t.Fatalf("%d spans, resident: %q", len(x.Spans), x.Resident())
	}
	if !bytes.Equal(addresses(t, x, &blob{bytes: p}), raw) {
		t.Error("other bytes when read again")
	}
}

func TestFileDigests(t *testing.T) {
	t.Parallel()
	p := gzipped(t, tarball(t))
	st := new(stage)
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaGzip, nil), "", StreamOptions{Stage: st})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, in := range files(x) {
		if in.Mode&typeMask != typeRegular {
			continue
		}
		found++
		sum := sha256.Sum256(content(x, in, st.Bytes()))
		same := false
		for _, f := range x.FilesOf(sum) {
			same = same || x.Inodes[f.Inode] == in
		}
		if !same {
			t.Errorf("%s: no digest %x", name, sum)
		}
	}
	if found < 6 {
		t.Errorf("%d files", found)
	}
}

// Whatever is wrong with a checkpoint, the bytes are right or there is an error.
func TestWrongCheckpoints(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{3 << 20})
	p := gzipped(t, raw)
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaGzip, nil), "", StreamOptions{Stage: new(stage)})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Windows) < 100 {
		t.Fatalf("%d bytes of windows", len(x.Windows))
	}
	refused := 0
	check := func(what string, i int, x *Index) {
		s := x.Spans[i]
		dst := make([]byte, s.Len)
		err := x.decodeSpan(i, p[s.Off:][:s.CLen], dst)
		switch {
		case err == nil && !bytes.Equal(dst, raw[s.Addr:][:s.Len]):
			t.Errorf("%s: wrong bytes", what)
		case err != nil && !errors.Is(err, ErrVerify):
			t.Errorf("%s: %v", what, err)
		case err != nil:
			refused++
		}
	}
	for i := range x.Spans {
		for _, at := range []uint32{0, 1, 3} {
			y := copyIndex(t, x)
			if w := y.Checkpoints[i].Window; w.Count > 8 {
				y.Windows[w.First+w.Count*at/4] ^= 0x41
				check("window", i, y)
			}
		}
		y := copyIndex(t, x)
		y.Checkpoints[i].Bit ^= 3
		check("bit", i, y)
		y = copyIndex(t, x)
		y.Checkpoints[i].Member ^= 1
		check("member", i, y)
		y = copyIndex(t, x)
		y.Spans[i].Off, y.Spans[i].CLen = y.Spans[i].Off+1, y.Spans[i].CLen-1
		check("offset", i, y)
	}
	if refused < 3*len(x.Spans) {
		t.Errorf("only %d were refused", refused)
	}
}

func copyIndex(t testing.TB, x *Index) *Index {
	t.Helper()
	y, err := Decode(bytes.Clone(x.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// attempt is a Resumable stage in memory.
type attempt struct {
	stage
	notes []byte
}

func (a *attempt) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(a.Bytes()).ReadAt(p, off)
}

func (a *attempt) Notes() ([]byte, int64, error) { return a.notes, int64(a.Len()), nil }

func (a *attempt) Note(note []byte) error {
	a.notes = append(a.notes, note...)
	return nil
}

func (a *attempt) Rewind(size int64, notes []byte) error {
	a.Truncate(int(size))
	a.notes = bytes.Clone(notes)
	return nil
}

// A pass that was cut off goes on where it was, and ends with the same index.
func TestStreamGoesOn(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{2 << 20, 100, 3 << 20, 1 << 20})
	for name, p := range compressedForms(t, raw) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := descriptor(p, mediaTar, nil)
			whole := new(stage)
			want, err := Stream(t.Context(), &blob{bytes: p}, d, "", StreamOptions{Stage: whole})
			if err != nil {
				t.Fatal(err)
			}
			diffID := want.DiffID()
			a := new(attempt)
			for _, after := range []int{len(p) / 3, len(p) * 9 / 10, len(p) - 1} {
				src := &failing{blob: blob{bytes: p}, after: int64(after), err: errNet}
				from := (&streaming{src: src, blob: d.Digest, diffID: diffID, options: StreamOptions{Stage: a, Log: silence()}}).resumption()
				src.after -= from.off
				if _, err := Stream(t.Context(), src, d, diffID, StreamOptions{Stage: a}); !errors.Is(err, errNet) {
					t.Fatalf("after %d: %v", after, err)
				}
			}
			a.notes = append(a.notes, `{"version":1,"torn`...)
			last := &blob{bytes: p}
			x, err := Stream(t.Context(), last, d, diffID, StreamOptions{Stage: a})
			if err != nil {
				t.Fatal(err)
			}
			if n := last.sent.Load(); name != "zstd of noise" && n > int64(len(p))/2 {
				t.Errorf("the last pass read %d bytes of %d", n, len(p))
			}
			if !bytes.Equal(a.Bytes(), whole.Bytes()) || !a.done {
				t.Error("another address space")
			}
			if !bytes.Equal(x.Encode(), want.Encode()) {
				t.Error("another index")
			}
		})
	}
}

// Where there are no ranges, a pass that was cut off cannot be gone on with.
func TestStreamGoesOnWithoutRanges(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{2 << 20, 3 << 20})
	p := gzipped(t, raw)
	d := descriptor(p, mediaGzip, nil)
	a := new(attempt)
	if _, err := Stream(t.Context(), &failing{blob: blob{bytes: p}, after: int64(len(p)) / 2, err: errNet}, d, digest.FromBytes(raw), StreamOptions{Stage: a}); !errors.Is(err, errNet) || len(a.notes) == 0 {
		t.Fatal(err)
	}
	w := &wire{blob: p, whole: true}
	if _, err := Stream(t.Context(), w, d, digest.FromBytes(raw), StreamOptions{Stage: a}); err != nil || !bytes.Equal(a.Bytes(), raw) {
		t.Errorf("error %v, %d bytes", err, a.Len())
	}
	if w.refused.Load() != 1 || w.requests.Load() != 2 {
		t.Errorf("%d requests, %d refused", w.requests.Load(), w.refused.Load())
	}
}

// What an interrupted pass left may have been damaged since.
func TestStreamDoesNotBelieveWhatWasLeft(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{2 << 20, 3 << 20})
	p := gzipped(t, raw)
	d := descriptor(p, mediaGzip, nil)
	left := new(attempt)
	if _, err := Stream(t.Context(), &failing{blob: blob{bytes: p}, after: int64(len(p)) / 2, err: errNet}, d, digest.FromBytes(raw), StreamOptions{Stage: left}); !errors.Is(err, errNet) {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(*attempt){
		"staged bytes": func(a *attempt) { a.Bytes()[a.Len()/3] ^= 1 },
		"fewer bytes":  func(a *attempt) { a.Truncate(a.Len() / 3) },
		"a note":       func(a *attempt) { a.notes[len(a.notes)/2] ^= 1 },
		"hash":         func(a *attempt) { a.notes = bytes.ReplaceAll(a.notes, []byte(`"at":`), []byte(`"at":1`)) },
		"nothing":      func(*attempt) {},
		"an entrance":  func(a *attempt) { a.notes = bytes.Replace(a.notes, []byte(`"bit":`), []byte(`"bit":1`), 1) },
		"another layer": func(a *attempt) {
			a.notes = bytes.ReplaceAll(a.notes, []byte(d.Digest), []byte(digest.FromString("x")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &attempt{notes: bytes.Clone(left.notes)}
			a.Write(left.Bytes())
			damage(a)
			x, err := Stream(t.Context(), &blob{bytes: p}, d, digest.FromBytes(raw), StreamOptions{Stage: a})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Bytes(), raw) || !a.done {
				t.Error("another address space")
			}
			if !bytes.Equal(addresses(t, x, &blob{bytes: p}), raw) {
				t.Error("spans that do not unpack")
			}
		})
	}
	bad := bytes.Clone(p)
	bad[len(bad)*3/4] ^= 1
	a := &attempt{notes: bytes.Clone(left.notes)}
	a.Write(left.Bytes())
	if _, err := Stream(t.Context(), &blob{bytes: bad}, d, digest.FromBytes(raw), StreamOptions{Stage: a}); !errors.Is(err, ErrVerify) || a.done || len(a.notes) > 0 {
		t.Errorf("wrong blob: %v, %d bytes of notes", err, len(a.notes))
	}
}

// Members end where buffers do: the place is known when the next one is begun.
func TestMembersAsLongAsBuffers(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, []int{3 << 20})
	for _, n := range []int{64 << 10, 512 << 10} {
		p := gzipped(t, cut(raw, n)...)
		x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaGzip, nil), "", StreamOptions{Stage: new(attempt)})
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Spans) < 4 || len(x.Windows) > 0 || !bytes.Equal(addresses(t, x, &blob{bytes: p}), raw) {
			t.Errorf("members of %d: %d spans, %d bytes of windows", n, len(x.Spans), len(x.Windows))
		}
	}
}

// A pass that is not to be gone on with ends, however much of the blob is left.
func TestStreamEndsAtABomb(t *testing.T) {
	t.Parallel()
	bomb := bytes.Repeat(zstded(t, make([]byte, 8<<20)), 200)
	bomb = append(bomb, noise(256<<10, 1)...)
	_, err := Stream(t.Context(), &blob{bytes: bomb}, descriptor(bomb, mediaZstd, nil), "", StreamOptions{Stage: new(nullStage)})
	if !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}
