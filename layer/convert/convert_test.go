//go:build linux

package convert_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer/convert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// odd is a layer with much of what real layers have and should not.
func odd() []testkit.Entry {
	big := append(testkit.Noise(1, 3<<20), make([]byte, 1<<20)...)
	big = append(big, testkit.Noise(2, 100)...)
	return []testkit.Entry{
		testkit.Dir("./"),
		testkit.Dir("etc/"),
		testkit.File("etc/passwd", []byte("root")).Xattr("user.note", "\x00\xff"),
		testkit.File("/usr/bin/big", big),
		testkit.File("empty", nil),
		testkit.Symlink("etc/link", "../usr/bin/big"),
		testkit.Hardlink("etc/hard", "usr/bin/big"),
		testkit.Whiteout("gone"),
		testkit.Opaque("etc"),
		testkit.File("a/very/deep/"+strings.Repeat("long/", 40)+"name", []byte("x")),
		testkit.File("zeros", make([]byte, 2<<20)),
		testkit.File("exact", []byte("time")).With(func(h *tar.Header) { h.ModTime = time.Unix(1700000000, 123456789) }),
		testkit.File("old", []byte("time")).With(func(h *tar.Header) { h.ModTime = time.Unix(-5, 0) }),
	}
}

func TestReproducible(t *testing.T) {
	t.Parallel()
	tarball := archive(t, odd()...)
	for _, f := range []convert.Format{convert.Estargz, convert.ZstdChunked} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			a, x := run(t, tarball, convert.Options{Format: f})
			b, y := run(t, tarball, convert.Options{Format: f})
			if !bytes.Equal(x, y) {
				t.Error("two runs differ")
			}
			if d := cmp.Diff(a, b); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestZstdChunked(t *testing.T) {
	t.Parallel()
	tarball := archive(t, odd()...)
	tarball = append(tarball, make([]byte, 100<<10)...) // padding as GNU tar writes it, and more
	r, blob := run(t, tarball, convert.Options{Format: convert.ZstdChunked})
	if !bytes.Equal(uncompress(t, blob), tarball) {
		t.Error("the tar has changed")
	}
	if r.Desc.MediaType != ocispec.MediaTypeImageLayerZstd {
		t.Error(r.Desc.MediaType)
	}
	got := zstdFiles(t, r, blob)
	for _, e := range odd() {
		if e.Typeflag != tar.TypeReg {
			continue
		}
		name := strings.TrimPrefix(e.Name, "/")
		if content, ok := got[name]; !ok || content != string(e.Data) {
			t.Errorf("%s: %d bytes, want %d (%t)", name, len(content), len(e.Data), ok)
		}
	}
	// A hole and the zeros between noise need not be fetched.
	zeros := 0
	for _, e := range zstdTOC(t, r, blob) {
		if e.ChunkType == "zeros" {
			zeros++
		}
	}
	if zeros != 3 {
		t.Errorf("%d chunks of zeros, want 3", zeros)
	}
}

func TestEstargz(t *testing.T) {
	t.Parallel()
	r, blob := run(t, archive(t, odd()...), convert.Options{Format: convert.Estargz})
	if got := r.Desc.Annotations[estargz.StoreUncompressedSizeAnnotation]; got != fmt.Sprint(r.Tar) {
		t.Errorf("uncompressed size %s, the tar has %d bytes", got, r.Tar)
	}
	got := stargzFiles(t, r, blob)
	want := map[string]string{}
	for _, e := range odd() {
		if e.Typeflag == tar.TypeReg {
			want[strings.TrimPrefix(e.Name, "/")] = string(e.Data)
		}
	}
	want["etc/hard"] = want["usr/bin/big"]
	delete(got, estargz.TOCTarName)
	delete(got, estargz.NoPrefetchLandmark)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q: %d bytes, want %d", name, len(got[name]), len(want[name]))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// TestExactTimes: the library rounds the times of the table of contents.
func TestExactTimes(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 123456789).UTC()
	file := testkit.File("f", []byte("x")).With(func(h *tar.Header) { h.ModTime = at })
	_, blob := run(t, archive(t, testkit.Dir("d"), file, testkit.File("last", nil)), convert.Options{Format: convert.Estargz})
	er, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Time{"f": at, "last": testkit.Epoch, "d": testkit.Epoch} {
		e, ok := er.Lookup(name)
		if !ok || !e.ModTime().Equal(want) {
			t.Errorf("%s: %v, want %v", name, e, want)
		}
	}
}

func TestEstargzOrder(t *testing.T) {
	t.Parallel()
	const none, mark, toc = estargz.NoPrefetchLandmark, estargz.PrefetchLandmark, estargz.TOCTarName
	tests := []struct {
		name    string
		profile []string
		entries []testkit.Entry
		want    []string
		found   []string
	}{
		{
			name:    "as it was",
			entries: []testkit.Entry{testkit.Dir("d"), testkit.File("d/f", nil)},
			want:    []string{none, "d/", "d/f", toc},
		},
		{
			name: "empty",
			want: []string{none, toc},
		},
		{
			name:    "profile",
			profile: []string{"/d/e/f", "no/such", "./b", "d/e"},
			entries: []testkit.Entry{testkit.File("a", nil), testkit.File("b", nil), testkit.Dir("d"), testkit.Dir("d/e"), testkit.File("d/e/f", nil)},
			want:    []string{"d/", "d/e/", "d/e/f", "b", mark, "a", toc},
			found:   []string{"/d/e/f", "./b", "d/e"},
		},
		{
			name:    "profile of nothing that is there",
			profile: []string{"no/such"},
			entries: []testkit.Entry{testkit.File("a", nil)},
			want:    []string{none, "a", toc},
		},
		{
			name:    "profile of everything",
			profile: []string{"h"},
			entries: []testkit.Entry{testkit.File("a", nil), testkit.Hardlink("h", "a")},
			want:    []string{"a", "h -> a", mark, toc},
			found:   []string{"h"},
		},
		{
			name:    "the last of a name",
			entries: []testkit.Entry{testkit.File("a", nil), testkit.Symlink("./a", "x"), testkit.Dir("d"), testkit.File("b", nil), testkit.Dir("/d")},
			want:    []string{none, "./a -> x", "b", "/d/", toc},
		},
		{
			name:    "link to what is replaced later",
			entries: []testkit.Entry{testkit.File("a", nil), testkit.Hardlink("h", "a"), testkit.Hardlink("i", "a"), testkit.File("a", nil), testkit.Hardlink("j", "a")},
			want:    []string{none, "h", "i -> h", "a", "j -> a", toc},
		},
		{
			name:    "link before its target",
			entries: []testkit.Entry{testkit.Hardlink("h", "i"), testkit.Hardlink("i", "a"), testkit.File("a", nil), testkit.File("b", nil)},
			want:    []string{none, "a", "b", "h -> a", "i -> a", toc},
		},
		{
			name:    "links in a circle, to itself, and to layers below",
			entries: []testkit.Entry{testkit.Hardlink("x", "y"), testkit.Hardlink("y", "x"), testkit.File("a", nil), testkit.Hardlink("a", "a"), testkit.Hardlink("z", "below")},
			want:    []string{none, "x -> y", "y -> x", "a", "z -> below", toc},
		},
		{
			name:    "a directory that is one no longer",
			entries: []testkit.Entry{testkit.Dir("d"), testkit.File("d/f", nil), testkit.Hardlink("h", "d/f"), testkit.File("dd", nil), testkit.Symlink("d", "e")},
			want:    []string{none, "h", "dd", "d -> e", toc},
		},
		{
			name:    "what converters added",
			entries: []testkit.Entry{testkit.File(mark, nil), testkit.File("a", nil), testkit.File(toc, []byte("{}"))},
			want:    []string{none, "a", toc},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, blob := run(t, archive(t, tt.entries...), convert.Options{Format: convert.Estargz, Profile: tt.profile})
			if d := cmp.Diff(tt.want, names(t, blob)); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.found, r.Prioritized); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestConvertTwice: the result of one conversion can be converted.
func TestConvertTwice(t *testing.T) {
	t.Parallel()
	tarball := archive(t, odd()...)
	first, blob := run(t, tarball, convert.Options{Format: convert.Estargz})
	again, _ := run(t, uncompress(t, blob), convert.Options{Format: convert.Estargz})
	if first.Desc.Digest != again.Desc.Digest {
		t.Errorf("%s became %s", first.Desc.Digest, again.Desc.Digest)
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	blobs := filepath.Join("..", "..", "..", "shared", "vectors", "tricky", "blobs", "sha256")
	found, err := os.ReadDir(blobs)
	if err != nil {
		t.Logf("no vectors here (%v): the generated layers of other tests must do", err)
	}
	for _, e := range found {
		raw, err := os.ReadFile(filepath.Join(blobs, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		r, err := convert.Uncompress(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		tarball, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(tarball) < 263 || string(tarball[257:262]) != "ustar" {
			continue
		}
		t.Run(e.Name()[:12], func(t *testing.T) {
			t.Parallel()
			want := contents(t, tarball)
			r, blob := run(t, tarball, convert.Options{Format: convert.ZstdChunked})
			if !bytes.Equal(uncompress(t, blob), tarball) {
				t.Error("the tar has changed")
			}
			got := zstdFiles(t, r, blob)
			for name, sum := range want {
				if s := fmt.Sprintf("%x", sha256.Sum256([]byte(got[name]))); s != sum {
					t.Errorf("zstd:chunked: %q: %d bytes", name, len(got[name]))
				}
			}
			r, blob = run(t, tarball, convert.Options{Format: convert.Estargz})
			got = stargzFiles(t, r, blob)
			for name, sum := range want {
				if s := fmt.Sprintf("%x", sha256.Sum256([]byte(got[name]))); s != sum && !ours(name) {
					t.Errorf("eStargz: %q: %d bytes", name, len(got[name]))
				}
			}
		})
	}
}

// TestSparse: the tar has only the data of sparse files; readers of the
// converted layers see the holes too.
func TestSparse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := bytes.Repeat([]byte{0}, 6<<20)
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range []int{0, 4096, 1<<20 - 4096, 5 << 20} {
		p := testkit.Noise(uint64(i), 8192)
		copy(want[at:], p)
		if _, err := f.WriteAt(p, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(len(want))), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tail"), []byte("after"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=1.0"}} {
		t.Run(strings.Join(args, ""), func(t *testing.T) {
			t.Parallel()
			args = append(slices.Clone(args), "--hole-detection=raw", "-S", "-c", "-C", dir, "sparse", "tail")
			tarball, err := exec.CommandContext(t.Context(), "tar", args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			if len(tarball) > len(want)/2 {
				t.Fatalf("%d bytes: not sparse", len(tarball))
			}
			r, blob := run(t, tarball, convert.Options{Format: convert.ZstdChunked})
			got := zstdFiles(t, r, blob)
			r, blob = run(t, tarball, convert.Options{Format: convert.Estargz})
			for name, got := range map[string]map[string]string{"zstd:chunked": got, "eStargz": stargzFiles(t, r, blob)} {
				if got["sparse"] != string(want) || got["tail"] != "after" {
					t.Errorf("%s: %d bytes, and %q", name, len(got["sparse"]), got["tail"])
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	good := archive(t, testkit.File("a", testkit.Noise(1, 4<<20)))
	cause := errors.New("the line is dead")
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	late := testkit.File("a", nil).With(func(h *tar.Header) { h.ModTime = time.Unix(1<<40, 0) })
	odd := testkit.File("a", nil).With(func(h *tar.Header) { h.Typeflag = 'M' })
	tests := []struct {
		name string
		ctx  context.Context
		tar  func() io.Reader
		want error
		text string
	}{
		{"no tar", t.Context(), bytesOf([]byte(strings.Repeat("no tar ", 1000))), convert.ErrMalformed, "tar at 0"},
		{"cut short", t.Context(), bytesOf(good[:2<<20]), convert.ErrMalformed, `"a"`},
		{"not UTF-8", t.Context(), bytesOf(archive(t, testkit.File("caf\xe9", nil))), convert.ErrUnrepresentable, `"caf\xe9"`},
		{"time", t.Context(), bytesOf(archive(t, late)), convert.ErrUnrepresentable, `"a"`},
		{"type", t.Context(), bytesOf(archive(t, odd)), convert.ErrMalformed, `"a"`},
		{"reader", t.Context(), func() io.Reader { return io.MultiReader(bytes.NewReader(good[:2<<20]), broken{cause}) }, cause, "the line is dead"},
		{"context", canceled, bytesOf(good), cause, "the line is dead"},
	}
	for _, tt := range tests {
		for _, f := range []convert.Format{convert.Estargz, convert.ZstdChunked} {
			t.Run(tt.name+"/"+string(f), func(t *testing.T) {
				t.Parallel()
				_, err := convert.Layer(tt.ctx, tt.tar(), io.Discard, convert.Options{Format: f, Dir: t.TempDir()})
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v", err)
				}
			})
		}
	}
}

func bytesOf(p []byte) func() io.Reader { return func() io.Reader { return bytes.NewReader(p) } }

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
