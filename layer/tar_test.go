package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rawTar writes tar blocks that archive/tar refuses to write.
type rawTar struct{ bytes.Buffer }

func (w *rawTar) header(name string, kind byte, size int, patch func(block []byte)) {
	b := make([]byte, tarBlock)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", size))
	copy(b[136:], "00000000007\x00")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	if patch != nil {
		patch(b)
	}
	setChecksum(b)
	w.Write(b)
}

func (w *rawTar) data(p []byte) {
	w.Write(p)
	w.Write(make([]byte, int(align(int64(len(p))))-len(p)))
}

// pax writes an extended header of "key=value" records.
func (w *rawTar) pax(records ...string) {
	var body string
	for _, r := range records {
		n := len(r) + 2
		for len(fmt.Sprint(n))+len(r)+2 != n {
			n = len(fmt.Sprint(n)) + len(r) + 2
		}
		body += fmt.Sprintf("%d %s\n", n, r)
	}
	w.header("pax", 'x', len(body), nil)
	w.data([]byte(body))
}

// gnu makes a header one of the old GNU format, with a sparse map of up to
// four pieces.
func gnu(real int, more bool, numbers ...int) func([]byte) {
	return func(b []byte) {
		copy(b[257:], "ustar  \x00")
		for i, n := range numbers {
			copy(b[386+12*i:], fmt.Sprintf("%011o\x00", n))
		}
		if more {
			b[482] = 1
		}
		copy(b[483:], fmt.Sprintf("%011o\x00", real))
	}
}

// extension is a block of the old GNU format's map.
func extension(more bool, numbers ...int) []byte {
	b := make([]byte, tarBlock)
	for i, n := range numbers {
		copy(b[12*i:], fmt.Sprintf("%011o\x00", n))
	}
	if more {
		b[504] = 1
	}
	return b
}

// spread returns a file of size bytes that has pieces of data where numbers,
// offset and length in turn, say.
func spread(size int, data []byte, numbers ...int) []byte {
	p := make([]byte, size)
	for i := 0; i < len(numbers); i += 2 {
		data = data[copy(p[numbers[i]:][:numbers[i+1]], data):]
	}
	return p
}

// parseTar returns the index of a tar and its files.
func parseTar(t testing.TB, p []byte) (*Index, error) {
	t.Helper()
	return Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaTar, nil), "", StreamOptions{Stage: new(stage)})
}

func TestSparse(t *testing.T) {
	t.Parallel()
	data := noise(2500, 6)
	text := "3\n0\n1000\n5000\n700\n9000\n800\n"
	for _, c := range []struct {
		name  string
		write func(w *rawTar)
		want  []byte
		holes bool
	}{
		{"old GNU", func(w *rawTar) {
			w.header("f", 'S', 2500, gnu(9800, false, 0, 1000, 5000, 700, 9000, 800))
		}, spread(9800, data, 0, 1000, 5000, 700, 9000, 800), true},
		{"old GNU, map of three blocks", func(w *rawTar) {
			w.header("f", 'S', 2500, gnu(90000, true, 0, 100, 1000, 100, 2000, 100, 3000, 100))
			w.Write(extension(true, 4000, 1000, 6000, 100, 7000, 100, 8000, 100, 9000, 100, 10000, 100, 11000, 10, 12000, 10, 13000, 10, 14000, 10, 15000, 10,
				16000, 10, 17000, 10, 18000, 10, 19000, 10, 20000, 10, 21000, 10, 22000, 10, 23000, 10, 24000, 10, 25000, 10))
			w.Write(extension(false, 30000, 450, 90000, 0))
		}, spread(90000, data, 0, 100, 1000, 100, 2000, 100, 3000, 100, 4000, 1000, 6000, 100, 7000, 100, 8000, 100, 9000, 100, 10000, 100, 11000, 10,
			12000, 10, 13000, 10, 14000, 10, 15000, 10, 16000, 10, 17000, 10, 18000, 10, 19000, 10, 20000, 10, 21000, 10, 22000, 10, 23000, 10, 24000, 10, 25000, 10, 30000, 450), true},
		{"old GNU after a long name", func(w *rawTar) {
			w.header("././@LongLink", 'L', 2, gnu(0, false))
			w.data([]byte("f\x00"))
			w.header("other", 'S', 2500, gnu(9800, false, 0, 1000, 5000, 700, 9000, 800))
		}, spread(9800, data, 0, 1000, 5000, 700, 9000, 800), true},
		{"PAX 0.0", func(w *rawTar) {
			w.pax("GNU.sparse.size=9800", "GNU.sparse.numblocks=3", "GNU.sparse.offset=0", "GNU.sparse.numbytes=1000",
				"GNU.sparse.offset=5000", "GNU.sparse.numbytes=700", "GNU.sparse.offset=9000", "GNU.sparse.numbytes=800")
			w.header("f", '0', 2500, nil)
		}, spread(9800, data, 0, 1000, 5000, 700, 9000, 800), true},
		{"PAX 0.1", func(w *rawTar) {
			w.pax("GNU.sparse.size=9800", "GNU.sparse.numblocks=3", "GNU.sparse.name=f", "GNU.sparse.map=0,1000,5000,700,9000,800")
			w.header("GNUSparseFile.1/f", '0', 2500, nil)
		}, spread(9800, data, 0, 1000, 5000, 700, 9000, 800), true},
		{"PAX 1.0", func(w *rawTar) {
			w.pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=f", "GNU.sparse.realsize=9800")
			w.header("GNUSparseFile.1/f", '0', 512+2500, nil)
			w.data([]byte(text))
		}, spread(9800, data, 0, 1000, 5000, 700, 9000, 800), true},
		{"PAX 1.0, size in a record", func(w *rawTar) {
			w.pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=f", "GNU.sparse.realsize=9800", "size=3012")
			w.header("GNUSparseFile.1/f", '0', 0, nil)
			w.data([]byte(text))
		}, spread(9800, data, 0, 1000, 5000, 700, 9000, 800), true},
		{"all data", func(w *rawTar) {
			w.header("f", 'S', 2500, gnu(2500, false, 0, 2500))
		}, data, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := new(rawTar)
			w.header("before", '0', 513, nil)
			w.data(noise(513, 7))
			c.write(w)
			w.data(data)
			w.header("after", '0', 5, nil)
			w.data([]byte("after"))
			p := w.Bytes()
			x, err := parseTar(t, p)
			if err != nil {
				t.Fatal(err)
			}
			have := files(x)
			f := have["/f"]
			if !bytes.Equal(content(x, f, p), c.want) || (f.Extents.Count > 0) != c.holes {
				t.Errorf("f: %+v", f)
			}
			if !bytes.Equal(content(x, have["/before"], p), noise(513, 7)) || string(content(x, have["/after"], p)) != "after" || len(have) != 4 {
				t.Errorf("neighbours: %v", have)
			}
		})
	}
}

func TestSparseHole(t *testing.T) {
	t.Parallel()
	w := new(rawTar)
	w.header("f", 'S', 0, gnu(5000, false, 5000, 0))
	w.header("after", '0', 5, nil)
	w.data([]byte("after"))
	x, err := parseTar(t, w.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	have := files(x)
	if !bytes.Equal(content(x, have["/f"], w.Bytes()), make([]byte, 5000)) || string(content(x, have["/after"], w.Bytes())) != "after" {
		t.Errorf("%+v", have)
	}
}

func TestSparseMalformed(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(w *rawTar){
		"more pieces than data": func(w *rawTar) { w.header("f", 'S', 100, gnu(9800, false, 0, 1000, 5000, 700)) },
		"pieces overlap":        func(w *rawTar) { w.header("f", 'S', 2500, gnu(9800, false, 0, 1000, 500, 700)) },
		"piece beyond the file": func(w *rawTar) { w.header("f", 'S', 2500, gnu(800, false, 0, 1000)) },
		"map never ends":        func(w *rawTar) { w.header("f", 'S', 2500, gnu(800, true, 0, 100)); w.Write(extension(true)) },
		"count without numbers": func(w *rawTar) {
			w.pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9800")
			w.header("f", '0', 2500, nil)
			w.data([]byte("99999\n"))
		},
		"odd list": func(w *rawTar) {
			w.pax("GNU.sparse.size=9800", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1000,5")
			w.header("f", '0', 2500, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := new(rawTar)
			write(w)
			w.data(noise(2500, 1))
			if x, err := parseTar(t, w.Bytes()); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, %v", x, err)
			}
		})
	}
}

// TestSparseByGNUTar checks the hand-made maps against the tool's.
func TestSparseByGNUTar(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("tar")
	if err != nil {
		t.Logf("no tar here: %v", err)
		return
	}
	if out, err := exec.CommandContext(t.Context(), tool, "--version").Output(); err != nil || !strings.Contains(string(out), "GNU tar") {
		t.Logf("not GNU tar: %s", out)
		return
	}
	dir := t.TempDir()
	want := make([]byte, 3<<20)
	for at := 0; at < len(want); at += 300000 {
		copy(want[at:], noise(9000, byte(at)))
	}
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(want); at += 300000 {
		if _, err := f.WriteAt(want[at:][:9000], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(len(want))), f.Close(), os.WriteFile(filepath.Join(dir, "g"), []byte("after"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, format := range [][]string{{"--format=gnu"}, {"--format=oldgnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=1.0"}} {
		t.Run(strings.Join(format, " "), func(t *testing.T) {
			t.Parallel()
			p, err := exec.CommandContext(t.Context(), tool, append(format, "--sparse", "-C", dir, "-cf", "-", "f", "g")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			x, err := parseTar(t, p)
			if err != nil {
				t.Fatal(err)
			}
			have := files(x)
			if in := have["/f"]; !bytes.Equal(content(x, in, p), want) || in.Extents.Count == 0 {
				t.Errorf("f: %+v", in)
			}
			if string(content(x, have["/g"], p)) != "after" {
				t.Errorf("g: %+v", have["/g"])
			}
		})
	}
}

func TestTarHeaders(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long/", 60) + "name"
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "git archive writes one", "path": "nonsense"}},
		{Name: "before-epoch", Typeflag: tar.TypeFifo, ModTime: time.Unix(-2, 250e6), Format: tar.FormatPAX},
		{Name: "subsec", Typeflag: tar.TypeFifo, ModTime: time.Unix(1700000000, 123456789), Format: tar.FormatPAX},
		{Name: "b\xffytes\x01", Typeflag: tar.TypeFifo, Format: tar.FormatGNU},
		{Name: long, Typeflag: tar.TypeSymlink, Linkname: long, Format: tar.FormatGNU},
		{Name: "dev", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 1 << 19, Mode: 0o100660, Format: tar.FormatGNU},
		{Name: "far", Typeflag: tar.TypeFifo, ModTime: time.Unix(1<<34, 0), Uid: maxID, Gid: maxID, Format: tar.FormatGNU},
		{Name: "xattr", Typeflag: tar.TypeDir, PAXRecords: map[string]string{
			"LIBARCHIVE.xattr.user.only%20here": "AAE", "LIBARCHIVE.xattr.user.both": "b3RoZXI=", "SCHILY.xattr.user.both": "this\nand=that",
		}},
		{Name: "contiguous", Typeflag: tar.TypeCont, Size: 3},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(h.Name, err)
		}
		if _, err := io.WriteString(w, "abc"[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := parseTar(t, buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	have := files(x)
	type row struct {
		Mode, UID, Major, Minor uint32
		Sec                     int64
		Nsec                    uint32
	}
	got := map[string]row{}
	for name, in := range have {
		if in.Flags&Implicit == 0 {
			got[name] = row{in.Mode, in.UID, in.RdevMajor, in.RdevMinor, in.MtimeSec, in.MtimeNsec}
		}
	}
	want := map[string]row{
		"/before-epoch":  {typeFifo, 0, 0, 0, -2, 250e6},
		"/subsec":        {typeFifo, 0, 0, 0, 1700000000, 123456789},
		"/b\xffytes\x01": {typeFifo, 0, 0, 0, 0, 0},
		"/" + long:       {typeSymlink, 0, 0, 0, 0, 0},
		"/dev":           {typeBlock | 0o660, 0, 259, 1 << 19, 0, 0},
		"/far":           {typeFifo, maxID, 0, 0, 1 << 34, 0},
		"/xattr":         {typeDir, 0, 0, 0, 0, 0},
		"/contiguous":    {typeRegular, 0, 0, 0, 0, 0},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if in := have["/"+long]; x.Pool.String(in.Link) != long {
		t.Errorf("link %q", x.Pool.String(in.Link))
	}
	if in := have["/contiguous"]; string(content(x, in, buf.Bytes())) != "abc" {
		t.Errorf("contiguous: %+v", in)
	}
	attrs := map[string]string{}
	for _, a := range x.Xattrs {
		attrs[x.Pool.String(a.Name)] = x.Pool.String(a.Value)
	}
	if d := cmp.Diff(map[string]string{"user.only here": "\x00\x01", "user.both": "this\nand=that"}, attrs); d != "" {
		t.Error(d)
	}
}

func TestTarMalformed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		write func(w *rawTar)
		want  string
	}{
		{"entry of no type", func(w *rawTar) { w.header("f", 'V', 0, nil) }, "entry of type 'V'"},
		{"escaping name", func(w *rawTar) { w.header("../f", '0', 0, nil) }, "leaves the root"},
		{"hard link cycle", func(w *rawTar) {
			w.header("f", '1', 0, func(b []byte) { copy(b[157:], "f") })
		}, "cycle"},
		{"user number", func(w *rawTar) { w.pax("uid=4294967295"); w.header("f", '0', 0, nil) }, "user number"},
		{"xattr escapes", func(w *rawTar) { w.pax("LIBARCHIVE.xattr.a%zz=AAAA"); w.header("f", '0', 0, nil) }, "xattr"},
		{"xattr not base64", func(w *rawTar) { w.pax("LIBARCHIVE.xattr.a=!"); w.header("f", '0', 0, nil) }, "xattr"},
		{"headers without end", func(w *rawTar) {
			for range 10 {
				w.header("././@LongLink", 'L', 1<<20-1, gnu(0, false))
				w.data(make([]byte, 1<<20-1))
			}
			w.header("f", '0', 0, nil)
		}, "bytes of an entry's headers"},
		{"data beyond the end", func(w *rawTar) { w.header("f", '0', 1<<30, nil) }, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := new(rawTar)
			c.write(w)
			if _, err := parseTar(t, w.Bytes()); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func setChecksum(b []byte) {
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field string
		want  int64
		bad   bool
	}{
		{"00000000017\x00", 15, false},
		{"        17 \x00", 15, false},
		{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 0, false},
		{"\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x05", 2<<32 | 5, false},
		{"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", 1<<63 - 1, false},
		{"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", 0, true},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 0, true},
		{"00000000089\x00", 0, true},
	} {
		if got, err := number([]byte(c.field)); got != c.want && !c.bad || (err != nil) != c.bad {
			t.Errorf("%q: %d, %v", c.field, got, err)
		}
	}
}
