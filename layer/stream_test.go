package layer

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func gzipped(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, p := range parts {
		w, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func zstded(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, p := range parts {
		w, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

// cut cuts p in pieces of n bytes.
func cut(p []byte, n int) (parts [][]byte) {
	for len(p) > n {
		parts, p = append(parts, p[:n]), p[n:]
	}
	return append(parts, p)
}

func TestStream(t *testing.T) {
	t.Parallel()
	whole := tarball(t)
	for _, c := range []struct {
		name   string
		blob   []byte
		tar    []byte
		format FormatID
	}{
		{"gzip", gzipped(t, whole), whole, FormatGzip},
		{"gzip of many members", gzipped(t, cut(whole, 70000)...), whole, FormatGzip},
		{"zstd", zstded(t, whole), whole, FormatZstd},
		{"zstd of many frames", zstded(t, cut(whole, 70000)...), whole, FormatZstd},
		{"zstd after a skippable frame", append([]byte{0x53, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}, zstded(t, whole)...), whole, FormatZstd},
		{"tar", whole, whole, FormatTar},
		{"bytes after the end of the archive", gzipped(t, append(bytes.Clone(whole), noise(2<<20, 3)...)), append(bytes.Clone(whole), noise(2<<20, 3)...), FormatGzip},
		{"no end of archive", gzipped(t, whole[:len(whole)-1024]), whole[:len(whole)-1024], FormatGzip},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src, st, done := &blob{bytes: c.blob}, new(stage), new(atomic.Int64)
			d := descriptor(c.blob, "application/x-whatever", nil)
			x, err := Stream(t.Context(), src, d, digest.FromBytes(c.tar), StreamOptions{Reason: "why", Stage: st, Progress: done})
			if err != nil {
				t.Fatal(err)
			}
			if x.Info.Format != c.format || x.Info.Trust != Proved || x.Reason() != "why" || x.DiffID() != digest.FromBytes(c.tar) || x.Blob() != d.Digest {
				t.Errorf("info %+v", x.Info)
			}
			if !st.done || st.size != int64(len(c.tar)) || st.spans != len(x.Spans) || !bytes.Equal(st.Bytes(), c.tar) {
				t.Errorf("stage of %d bytes, %d spans", st.size, st.spans)
			}
			if done.Load() != int64(len(c.blob)) || src.requests.Load() != 1 {
				t.Errorf("progress %d of %d in %d requests", done.Load(), len(c.blob), src.requests.Load())
			}
			if !bytes.Equal(addresses(t, x, src), c.tar) {
				t.Error("other bytes when read again")
			}
			checkTarball(t, x, st.Bytes())
			if _, err := Decode(x.Encode()); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkTarball compares the files of an index with those of tarball.
func checkTarball(t *testing.T, x *Index, space []byte) {
	t.Helper()
	want := map[string][]byte{
		"/d/small": []byte("small"), "/h": []byte("small"), "/d/empty": {}, "/d/big": noise(1<<20+5, 1),
		"/d/text": bytes.Repeat([]byte("all work and no play\n"), 20000), "/d/block": noise(512, 2), "/d/xattr": []byte("x"),
	}
	have := files(x)
	for name, data := range want {
		in, ok := have[name]
		if !ok || in.Mode&typeMask != typeRegular || !bytes.Equal(content(x, in, space), data) {
			t.Errorf("%s: %+v", name, in)
		}
	}
	if in := have["/d/small"]; in.Mode != typeRegular|0o4644 || in.UID != 3000000 || in.GID != 7 {
		t.Errorf("/d/small: %+v", in)
	}
	if in := have["/c"]; in.Mode != typeChar|0o666 || in.RdevMajor != 1 || in.RdevMinor != 3 {
		t.Errorf("/c: %+v", in)
	}
	if in := have["/l"]; x.Pool.String(in.Link) != "d/small" {
		t.Errorf("/l: %+v", in)
	}
	if in := have["/d/xattr"]; in.Xattrs.Count != 1 || x.Pool.String(x.Xattrs[in.Xattrs.First].Value) != "a\x00b" {
		t.Errorf("/d/xattr: %+v", in)
	}
	if lines := strings.Join(listing(x), "\n"); !strings.Contains(lines, "/gone/x whiteout") {
		t.Errorf("no whiteout in %s", lines)
	}
}

func TestStreamEmpty(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, 1024)
	for name, c := range map[string][2][]byte{
		"no bytes": {nil, nil}, "gzip of no bytes": {gzipped(t, nil), nil}, "zstd of no bytes": {zstded(t, nil), nil},
		"empty archive": {zeros, zeros}, "gzip of an empty archive": {gzipped(t, zeros), zeros},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := new(stage)
			x, err := Stream(t.Context(), &blob{bytes: c[0]}, descriptor(c[0], mediaTar, nil), digest.FromBytes(c[1]), StreamOptions{Stage: st})
			if err != nil {
				t.Fatal(err)
			}
			if len(x.Inodes) != 1 || x.Info.AddrSize != int64(len(c[1])) || !st.done {
				t.Errorf("%+v", x.Info)
			}
		})
	}
}

func TestStreamRefuses(t *testing.T) {
	t.Parallel()
	whole := tarball(t)
	good := gzipped(t, whole)
	flipped := func(p []byte, at int) []byte {
		p = bytes.Clone(p)
		p[at] ^= 0x10
		return p
	}
	garbled := bytes.Clone(whole)
	garbled[512+3] ^= 1 // in a header
	bomb := bytes.Repeat(zstded(t, make([]byte, 8<<20)), 12)
	for _, c := range []struct {
		name   string
		served []byte
		d      ocispec.Descriptor
		diffID digest.Digest
		want   error
		text   []string
	}{
		{"flipped byte in gzip", flipped(good, 1000), descriptor(good, mediaGzip, nil), digest.FromBytes(whole), ErrVerify, []string{digest.FromBytes(good).String(), digest.FromBytes(flipped(good, 1000)).String()}},
		{"flipped magic", flipped(good, 0), descriptor(good, mediaGzip, nil), digest.FromBytes(whole), ErrVerify, nil},
		{"flipped byte in tar", flipped(whole, len(whole)-600), descriptor(whole, mediaTar, nil), digest.FromBytes(whole), ErrVerify, nil},
		{"flipped byte in zstd", flipped(zstded(t, whole), 5000), descriptor(zstded(t, whole), mediaZstd, nil), digest.FromBytes(whole), ErrVerify, nil},
		{"another diffID", good, descriptor(good, mediaGzip, nil), digest.FromString("other"), ErrVerify, []string{"uncompressed layer", digest.FromString("other").String(), digest.FromBytes(whole).String()}},
		{"broken tar of the right digest", gzipped(t, garbled), descriptor(gzipped(t, garbled), mediaGzip, nil), digest.FromBytes(garbled), ErrMalformed, []string{"tar header at"}},
		{"truncated gzip of the right digest", good[:len(good)-100], descriptor(good[:len(good)-100], mediaGzip, nil), digest.FromBytes(whole), ErrMalformed, []string{"unexpected EOF"}},
		{"truncated tar of the right digest", whole[:len(whole)/2], descriptor(whole[:len(whole)/2], mediaTar, nil), digest.FromBytes(whole[:len(whole)/2]), ErrMalformed, []string{"unexpected EOF"}},
		{"no archive", []byte("BZh9 is not read here"), descriptor([]byte("BZh9 is not read here"), mediaTar, nil), digest.FromBytes([]byte("BZh9 is not read here")), ErrMalformed, []string{"tar header at 0"}},
		{"bomb", bomb, descriptor(bomb, mediaZstd, nil), digest.FromBytes(whole), ErrMalformed, []string{"exceed the limit"}},
		{"digest of no algorithm", good, ocispec.Descriptor{Digest: "md9:00"}, "", ErrMalformed, []string{"md9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			st := new(stage)
			_, err := Stream(t.Context(), &blob{bytes: c.served}, c.d, c.diffID, StreamOptions{Stage: st})
			if !errors.Is(err, c.want) || st.done {
				t.Fatalf("got %v, committed %v", err, st.done)
			}
			for _, text := range append(c.text, "layer "+c.d.Digest.String()) {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
		})
	}
}

var errNet = errors.New("network")

// failing is a Source whose body fails or ends after some bytes.
type failing struct {
	blob
	after int64
	err   error
}

func (f *failing) ReadRange(_ context.Context, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(bytes.NewReader(f.bytes[off:][:min(n, f.after)]), &failure{f.err})), nil
}

type failure struct{ err error }

func (f *failure) Read([]byte) (int, error) { return 0, f.err }

func TestStreamSourceFails(t *testing.T) {
	t.Parallel()
	whole := tarball(t)
	for name, p := range map[string][]byte{"gzip": gzipped(t, whole), "zstd": zstded(t, whole), "tar": whole} {
		for _, after := range []int64{0, 2, 100, int64(len(p)) - 1} {
			st := new(stage)
			_, err := Stream(t.Context(), &failing{blob: blob{bytes: p}, after: after, err: errNet}, descriptor(p, mediaTar, nil), digest.FromBytes(whole), StreamOptions{Stage: st})
			if !errors.Is(err, errNet) || errors.Is(err, ErrVerify) || errors.Is(err, ErrMalformed) || st.done {
				t.Errorf("%s after %d: %v", name, after, err)
			}
			_, err = Stream(t.Context(), &failing{blob: blob{bytes: p}, after: after, err: io.EOF}, descriptor(p, mediaTar, nil), digest.FromBytes(whole), StreamOptions{Stage: st})
			if err == nil || errors.Is(err, ErrVerify) || errors.Is(err, ErrMalformed) || st.done {
				t.Errorf("%s ends after %d: %v", name, after, err)
			}
		}
	}
}

type fullStage struct{ stage }

var errFull = errors.New("disk full")

func (*fullStage) Write([]byte) (int, error) { return 0, errFull }

func TestStreamStageFails(t *testing.T) {
	t.Parallel()
	p := gzipped(t, tarball(t))
	_, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaGzip, nil), "", StreamOptions{Stage: new(fullStage)})
	if !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

// stuck is a Source whose body never comes.
type stuck struct{ blob }

func (s *stuck) ReadRange(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
	return io.NopCloser(readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestStreamCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	context.AfterFunc(t.Context(), cancel)
	go cancel()
	_, err := Stream(ctx, &stuck{blob{bytes: make([]byte, 10)}}, descriptor(make([]byte, 10), mediaGzip, nil), "", StreamOptions{Stage: new(stage)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestRestream(t *testing.T) {
	t.Parallel()
	whole := tarball(t)
	p := gzipped(t, whole)
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaGzip, nil), "", StreamOptions{Stage: new(stage)})
	if err != nil {
		t.Fatal(err)
	}
	visits := 0
	err = x.restream(t.Context(), &blob{bytes: p}, func(int, int64, []byte) error {
		visits++
		return errStop
	})
	if err != nil || visits != 1 {
		t.Errorf("stopped: %v after %d", err, visits)
	}
	err = x.restream(t.Context(), &blob{bytes: p}, func(int, int64, []byte) error { return errFull })
	if !errors.Is(err, errFull) {
		t.Errorf("visit failed: %v", err)
	}
	bad := bytes.Clone(p)
	bad[len(bad)-700] ^= 1
	err = x.restream(t.Context(), &blob{bytes: bad}, func(int, int64, []byte) error { return nil })
	if !errors.Is(err, ErrVerify) || !strings.Contains(err.Error(), "span 1") {
		t.Errorf("flipped: %v", err)
	}
	err = x.restream(t.Context(), &failing{blob: blob{bytes: p}, after: 5000, err: errNet}, func(int, int64, []byte) error { return nil })
	if !errors.Is(err, errNet) || errors.Is(err, ErrVerify) {
		t.Errorf("source failed: %v", err)
	}
}

func BenchmarkStream(b *testing.B) {
	var whole []byte
	for i := range 40 {
		whole = append(whole, tarOf(b, "f", string(noise(500<<10, byte(i)))+strings.Repeat("all work and no play\n", 25000))[:align(500<<10+25000*21)+512]...)
	}
	whole = append(whole, make([]byte, 1024)...)
	for name, p := range map[string][]byte{"gzip": gzipped(b, whole), "zstd": zstded(b, whole), "tar": whole} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(whole)))
			b.ReportAllocs()
			d := descriptor(p, mediaTar, nil)
			for b.Loop() {
				if _, err := Stream(b.Context(), &blob{bytes: p}, d, "", StreamOptions{Stage: new(nullStage)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type nullStage struct{ stage }

func (*nullStage) Write(p []byte) (int, error) { return len(p), nil }
