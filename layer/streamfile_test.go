package layer

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestStreamFile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, path string
		blob       []byte
		spans      int
		want       []string
	}{
		{"long", "model.bin", noise(freeSpan*2+5, 1), 3, []string{"/", "/model.bin"}},
		{"nothing in it", "empty", nil, 0, []string{"/", "/empty"}},
		{"a gzip is not unpacked", "chart.tgz", gzipped(t, []byte("chart")), 1, []string{"/", "/chart.tgz"}},
		{"a tar is not unpacked", "x.tar", tarball(t), 3, []string{"/", "/x.tar"}},
		{"in directories", "./a//b/../c/f", []byte("x"), 1, []string{"/", "/a", "/a/c", "/a/c/f"}},
		{"absolute", "/etc/f", []byte("x"), 1, []string{"/", "/etc", "/etc/f"}},
		{"as in a directory", "d/", []byte("x"), 1, []string{"/", "/d"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			st, d := new(stage), descriptor(tc.blob, mediaGzip, nil)
			x, err := Stream(t.Context(), &blob{bytes: tc.blob}, d, "", StreamOptions{Stage: st, File: tc.path})
			if err != nil {
				t.Fatal(err)
			}
			if x.Info.Format != FormatFile || x.DiffID() != d.Digest || x.Info.AddrSize != d.Size || len(x.Spans) != tc.spans || !st.done || !bytes.Equal(st.Bytes(), tc.blob) {
				t.Errorf("%+v, %d spans, diffID %s", x.Info, len(x.Spans), x.DiffID())
			}
			found := files(x)
			var names []string
			for name, in := range found {
				names = append(names, name)
				if in.isDir() && (in.Mode != typeDir|0o755 || in.Flags != Implicit) {
					t.Errorf("%s: %+v", name, in)
				}
			}
			slices.Sort(names)
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Error(diff)
			}
			in := found[tc.want[len(tc.want)-1]]
			if in.Mode != typeRegular|0o644 || in.UID != 0 || in.MtimeSec != 0 || !bytes.Equal(content(x, in, st.Bytes()), tc.blob) {
				t.Errorf("%+v", in)
			}
			if len(x.Files) != 1 || sha256Digest(x.Files[0].SHA256) != d.Digest {
				t.Errorf("digests of files: %v", x.Files)
			}
			if !bytes.Equal(addresses(t, x, &blob{bytes: tc.blob}), tc.blob) {
				t.Error("other bytes when read again")
			}
			if _, err := Decode(x.Encode()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStreamFileRefuses(t *testing.T) {
	t.Parallel()
	p := []byte("some file")
	d := descriptor(p, "application/octet-stream", nil)
	for _, tc := range []struct {
		name, path string
		diffID     digest.Digest
		served     string
		want       error
		requests   int64
	}{
		{"leaves the root", "../etc/passwd", "", "some file", ErrMalformed, 0},
		{"leaves the root later", "a/../../f", "", "some file", ErrMalformed, 0},
		{"the root", "/", "", "some file", ErrMalformed, 0},
		{"a whiteout", "d/.wh.f", "", "some file", ErrMalformed, 0},
		{"in a whiteout", ".wh.d/f", "", "some file", ErrMalformed, 0},
		{"a long name", strings.Repeat("n", maxName+1), "", "some file", ErrMalformed, 0},
		{"other bytes", "f", "", "same file", ErrVerify, maxPasses},
		{"another diffID", "f", digest.FromString("other"), "some file", ErrVerify, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			src := &blob{bytes: []byte(tc.served)}
			_, err := Stream(t.Context(), src, d, tc.diffID, StreamOptions{File: tc.path})
			if !errors.Is(err, tc.want) || src.requests.Load() != tc.requests {
				t.Errorf("got %v after %d requests, want %v after %d", err, src.requests.Load(), tc.want, tc.requests)
			}
		})
	}
}

// A layer that is streamed without a stage has the same index, and is read by
// ranges.
func TestStreamWithoutStage(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"tar", "gzip", "zstd"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			d := descriptor(b.blob, mediaTar, nil)
			x, err := Stream(t.Context(), &blob{bytes: b.blob}, d, b.x.DiffID(), StreamOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(x.Encode(), b.x.Encode()) {
				t.Error("another index")
			}
		})
	}
}

// Bytes that were wrong once are not what the blob is, where the stage can be
// written anew.
func TestStreamGetsOverWrongBytes(t *testing.T) {
	t.Parallel()
	none := func() Stage { return nil }
	for _, form := range []string{"tar", "gzip", "zstd"} {
		for _, tc := range []struct {
			name     string
			stage    func() Stage
			wrong    int64 // first requests
			requests int64
			want     error
		}{
			{"twice, nothing kept", none, 2, 3, nil},
			{"too often, nothing kept", none, 3, 3, ErrVerify},
			{"twice, resumable", func() Stage { return new(attempt) }, 2, 3, nil},
			{"once, no way back", func() Stage { return new(stage) }, 1, 1, ErrVerify},
		} {
			t.Run(form+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, 3<<19)
				w := &wire{blob: b.blob, flip: func(request int64) bool { return request <= tc.wrong }}
				x, err := Stream(t.Context(), w, descriptor(b.blob, mediaTar, nil), b.x.DiffID(), StreamOptions{Stage: tc.stage()})
				if !errors.Is(err, tc.want) || w.requests.Load() != tc.requests || w.open.Load() != 0 {
					t.Fatalf("error %v after %d requests, %d bodies open", err, w.requests.Load(), w.open.Load())
				}
				if err == nil && !bytes.Equal(x.Encode(), b.x.Encode()) {
					t.Error("another index")
				}
			})
		}
	}
}

// A pass over a file that was cut off goes on where it was, though not as one
// over a tar.
func TestStreamFileGoesOn(t *testing.T) {
	t.Parallel()
	p := noise(6<<20, 7)
	d := descriptor(p, mediaTar, nil)
	a := new(attempt)
	src := &failing{blob: blob{bytes: p}, after: 5 << 20, err: errNet}
	if _, err := Stream(t.Context(), src, d, "", StreamOptions{Stage: a, File: "f"}); !errors.Is(err, errNet) {
		t.Fatal(err)
	}
	last := &blob{bytes: p}
	x, err := Stream(t.Context(), last, d, "", StreamOptions{Stage: a, File: "f"})
	if err != nil {
		t.Fatal(err)
	}
	if last.sent.Load() > 3<<20 || !bytes.Equal(a.Bytes(), p) || !a.done || len(x.Spans) != 12 {
		t.Errorf("%d bytes read anew, %d spans", last.sent.Load(), len(x.Spans))
	}
}
