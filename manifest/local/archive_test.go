package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

func TestScanRefuses(t *testing.T) {
	t.Parallel()
	good := pack(t, single(t, layerOf(t, "x"))...)
	huge := pack(t, entry{name: "huge", content: "x"})
	copy(huge[124:136], "77777777777\x00")
	checksum(huge[:512])
	for _, tc := range []struct {
		name string
		tar  []byte
		want string
	}{
		{"dots", pack(t, entry{name: "a/../../b"}), `entry "a/../../b": the name leads out of its folder`},
		{"dots at the end", pack(t, entry{name: "a/.."}), `entry "a/..": the name leads out`},
		{"absolute", pack(t, entry{name: "/etc/passwd"}), `entry "/etc/passwd": the name is absolute`},
		{"absolute folder", pack(t, entry{name: "/etc", link: tar.TypeDir}), `the name is absolute`},
		{"long name", pack(t, entry{name: strings.Repeat("a/", 2500) + "a"}), "the name has 5001 bytes, more than 4096"},
		{"hard link out", pack(t, entry{name: "a", content: "../b", link: tar.TypeLink}), `entry "a": it is a link to "../b": the name leads out`},
		{"long link", pack(t, entry{name: "a", content: strings.Repeat("b", 4097), link: tar.TypeSymlink}), `entry "a": it is a link to a name of 4097 bytes`},
		{"too large", huge, `entry "huge": it has 8589934591 bytes, and the archive ends after 1536`},
		{"cut off in the data", good[:1000], `entry "layer.tar": it has`},
		{"cut off in a header", good[:512+2048+200], "it ends within entry 2"},
		{"no tar", bytes.Repeat([]byte("x"), 2048), "it is not a tar archive"},
		{"short", []byte("x"), "it ends within entry 1"},
		{"damaged header", append(bytes.Clone(good[:5*512]), bytes.Repeat([]byte("x"), 512)...), "the header is damaged"},
		{"too many names", many(t, 5000, strings.Repeat("x", 4000)), "the names of entries have more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := scan(t.Context(), bytes.NewReader(tc.tar), int64(len(tc.tar)))
			if !errors.Is(err, ErrMalformed) || !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// checksum corrects that of a header.
func checksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// many is an archive of the same empty member n times.
func many(t testing.TB, n int, name string) []byte {
	t.Helper()
	one := pack(t, entry{name: name})
	return bytes.Repeat(one[:len(one)-1024], n)
}

func TestScanCounts(t *testing.T) {
	t.Parallel()
	p := many(t, maxEntries+1, "name")
	if _, err := scan(t.Context(), bytes.NewReader(p), int64(len(p))); err == nil || !strings.Contains(err.Error(), `entry "name": more than 100000 entries`) {
		t.Errorf("got %v", err)
	}
	p = p[512:]
	if found, err := scan(t.Context(), bytes.NewReader(p), int64(len(p))); err != nil || len(found) != 1 {
		t.Errorf("got %d, %v", len(found), err)
	}
}

func TestScanEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := pack(t, entry{name: "a"})
	if _, err := scan(ctx, bytes.NewReader(p), int64(len(p))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	circle := []entry{{"c1", "c2", tar.TypeSymlink}, {"c2", "c1", tar.TypeSymlink}, {"self", "self", tar.TypeLink}}
	for i := range maxLinks {
		circle = append(circle, entry{fmt.Sprintf("l%d", i+1), fmt.Sprintf("l%d", i), tar.TypeSymlink})
	}
	p := pack(t, append(circle,
		entry{name: "./dir/file", content: "file"},
		entry{name: "l0", content: "end"},
		entry{"over", "l40", tar.TypeLink},
		entry{"soft", "dir/file", tar.TypeSymlink},
		entry{"dir/up", "../dir/./file", tar.TypeSymlink},
		entry{"hard", "dir/file", tar.TypeLink},
		entry{"dir/hard", "./soft", tar.TypeLink},
		entry{"folder", "dir", tar.TypeSymlink},
		entry{"out", "../file", tar.TypeSymlink},
		entry{"root", "/dir/file", tar.TypeSymlink},
		entry{"dangling", "nothing", tar.TypeSymlink},
		entry{"way", strings.Repeat("a/../", maxSteps/2) + "l0", tar.TypeSymlink},
		entry{name: "twice", content: "one"}, entry{name: "twice", content: "two"},
		entry{name: manifestFile, content: "[]"}, entry{name: "./" + manifestFile, content: "[]"},
		entry{"folder2", "", tar.TypeDir},
	)...)
	found, err := scan(t.Context(), bytes.NewReader(p), int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{from: bytes.NewReader(p), table: found}
	for _, tc := range []struct{ name, open, want, wrong string }{
		{"file", "dir/file", "file", ""},
		{"file, not clean", "./dir//file", "file", ""},
		{"symbolic link", "soft", "file", ""},
		{"symbolic link upwards", "dir/up", "file", ""},
		{"hard link", "hard", "file", ""},
		{"hard link to a symbolic one", "dir/hard", "file", ""},
		{"through a folder's link", "folder/file", "file", ""},
		{"through a folder's link to a link", "folder/up", "file", ""},
		{"forty links", "l40", "end", ""},
		{"the last of several", "twice", "two", ""},
		{"one link more", "over", "", `entry "over": it leads over more than 40 links`},
		{"circle", "c1", "", `entry "c1": it leads over more than 40 links, or in a circle`},
		{"hard link to itself", "self", "", "in a circle"},
		{"long way", "way", "", `entry "way": it leads over more than 1024 folders`},
		{"out", "out", "", `entry "out": its links lead out of the archive`},
		{"absolute link", "root", "", `entry "root": it is a link to "/dir/file", out of the archive`},
		{"manifest.json twice", manifestFile, "", `entry "manifest.json": it is there twice`},
		{"dots asked for", "dir/../dir/file", "", "the name leads out"},
		{"nothing asked for", "", "", "the name is empty"},
		{"NUL", "a\x00b", "", `entry "a\x00b": the name holds a NUL`},
		{"missing", "nothing", "", "file does not exist"},
		{"dangling", "dangling", "", "file does not exist"},
		{"folder", "folder2", "", "file does not exist"},
		{"below a file", "dir/file/x", "", "file does not exist"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, err := a.open(tc.open)
			if tc.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wrong) {
					t.Errorf("got %v, want %s", err, tc.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := f.read(maxDocument); err != nil || string(got) != tc.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestSparse refuses members that do not lie in one piece, once they are
// needed.
func TestSparse(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, "x")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range single(t, layer) {
		h := &tar.Header{Name: e.name, Size: int64(len(e.content)), Mode: 0o644, Format: tar.FormatPAX}
		if e.name == "layer.tar" {
			// As GNU tar writes sparse files, but with one piece in the map.
			sparseMap := fmt.Sprintf("1\n0\n%d\n", len(e.content))
			e.content = sparseMap + strings.Repeat("\x00", 512-len(sparseMap)) + e.content
			h.Size = int64(len(e.content))
			h.PAXRecords = map[string]string{"SPARSE": "1"} // the writer refuses the real names
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	records := fmt.Sprintf("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n29 GNU.sparse.name=layer.tar\n%d GNU.sparse.realsize=%d\n",
		len("29 GNU.sparse.realsize=\n")+len(fmt.Sprint(len(layer))), len(layer))
	p := bytes.Replace(b.Bytes(), append([]byte("12 SPARSE=1\n"), make([]byte, len(records)-12)...), []byte(records), 1)
	copy(p[124:136], fmt.Sprintf("%011o\x00", len(records)))
	checksum(p[:512])
	err := failure(t, "docker-archive:"+save(t, p))
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), `entry "layer.tar": it is sparse`) {
		t.Errorf("got %v", err)
	}
}

func TestCompressedAsAWhole(t *testing.T) {
	t.Parallel()
	p := pack(t, single(t, layerOf(t, "x"))...)
	damaged := gz(t, p)
	damaged[len(damaged)-6] ^= 1
	half := zst(t, p)
	for _, tc := range []struct {
		name string
		file []byte
		want string
	}{
		{"gzip", gz(t, p), ""},
		{"gzip in members", append(gz(t, p[:700]), gz(t, p[700:])...), ""},
		{"zstd", zst(t, p), ""},
		{"zstd behind a skippable frame", append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc"), zst(t, p)...), ""},
		{"damaged", damaged, "it cannot be unpacked: "},
		{"cut off", half[:len(half)/2], "it cannot be unpacked: "},
		{"no tar", gz(t, []byte("text")), "it ends within entry 1"},
		{"bzip2", []byte("BZh91AY&SY"), "bunzip2"},
		{"xz", []byte("\xfd7zXZ\x00..."), "unxz"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tmp, path := t.TempDir(), save(t, tc.file)
			src, err := Open(t.Context(), parse(t, "docker-archive:"+path), Options{Tmp: tmp})
			if names, readErr := os.ReadDir(tmp); readErr != nil || len(names) != 0 {
				t.Errorf("left are %v, %v", names, readErr)
			}
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// What was unpacked needs the archive no more.
			if err := os.Truncate(path, 0); err != nil {
				t.Error(err)
			}
			if got := whole(t, src.Open(nil, layers(t, src)[0])); string(got) != layerOf(t, "x") {
				t.Errorf("got %q", got)
			}
			if err := src.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnpackFails(t *testing.T) {
	t.Parallel()
	path := save(t, gz(t, pack(t, single(t, layerOf(t, "x"))...)))
	_, err := Open(t.Context(), parse(t, "docker-archive:"+path), Options{Tmp: filepath.Join(t.TempDir(), "missing")})
	if err == nil || !strings.Contains(err.Error(), "room to unpack it") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, parse(t, "docker-archive:"+path), Options{Tmp: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	full := &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	if err := unpacking(full); !strings.Contains(err.Error(), "no room to unpack it: write x: no space left on device; decompress it where there is room") {
		t.Errorf("got %v", err)
	}
}
