package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/peelfs/peel/internal/flat"
)

// FuzzTar: any stream gives an error or an index that can be walked, whose
// files have the bytes that archive/tar reads.
func FuzzTar(f *testing.F) {
	f.Add(tarOf(f, "a/b", "content"))
	sparse := new(rawTar)
	sparse.header("f", 'S', 25, gnu(98, true, 0, 10, 50, 7))
	sparse.Write(extension(false, 90, 8))
	sparse.data(noise(25, 1))
	sparse.pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=g", "GNU.sparse.realsize=98")
	sparse.header("GNUSparseFile.1/g", '0', 512+25, nil)
	sparse.data([]byte("2\n0\n20\n90\n5\n"))
	sparse.data(noise(25, 2))
	sparse.pax("GNU.sparse.size=98", "GNU.sparse.numblocks=2", "GNU.sparse.map=0,20,90,5")
	sparse.header("h", '0', 25, nil)
	sparse.data(noise(25, 3))
	f.Add(sparse.Bytes())
	links := new(rawTar)
	links.header("d/", '5', 0, nil)
	links.header("d/l", '2', 0, func(b []byte) { copy(b[157:], "../e") })
	links.header("d/l/x", '0', 3, nil)
	links.data([]byte("abc"))
	links.header("h", '1', 0, func(b []byte) { copy(b[157:], "d/l/x") })
	links.header("d/.wh.y", '0', 0, nil)
	f.Add(links.Bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 1<<20 {
			return
		}
		p = bytes.Clone(p)
		fixChecksums(p)
		rest := cut(p, 700)
		parser := newTarParser(nil)
		parser.run(&blockReader{release: func([]byte) {}, next: func() ([]byte, error) {
			if len(rest) == 0 {
				return nil, io.EOF
			}
			b := rest[0]
			rest = rest[1:]
			return b, nil
		}})
		var spans []Span
		var chunks []Chunk
		if n := int64(len(p)); n > 0 {
			spans = []Span{{Len: n, CLen: n, Chunks: flat.Range{Count: 1}}}
			chunks = []Chunk{{Len: uint32(n)}}
		}
		x, err := parser.b.Index(InfoInput{BlobSize: int64(len(p)), AddrSize: int64(len(p)), Format: FormatTar, Trust: Proved}, Cut{Spans: spans, Chunks: chunks})
		for _, err := range []error{parser.err, err} {
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if _, err := Decode(x.Encode()); err != nil {
			t.Fatal(err)
		}
		walkTables(t, x)
		compareWithTar(t, x, p)
	})
}

// fixChecksums lets the fuzzer past the checksums of headers.
func fixChecksums(p []byte) {
	for ; len(p) >= tarBlock; p = p[tarBlock:] {
		if string(p[257:262]) == "ustar" {
			setChecksum(p[:tarBlock])
		}
	}
}

// compareWithTar reads the tar as archive/tar does and compares the content of
// each file that is not replaced later.
func compareWithTar(t *testing.T, x *Index, p []byte) {
	want := map[string]string{}
	tr := tar.NewReader(bytes.NewReader(p))
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		name, err := cleanName(h.Name)
		if err != nil || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
			return // one file may have several names then
		}
		delete(want, "/"+name)
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse || h.Size > 1<<24 {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return // archive/tar finds more fault with a sparse file when it is read
		}
		want["/"+name] = string(data)
	}
	have := files(x)
	for name, data := range want {
		in, ok := have[name]
		if ok && in.Mode&typeMask == typeRegular && in.Size == int64(len(data)) && string(content(x, in, p)) != data {
			t.Fatalf("%q: %d bytes differ", name, len(data))
		}
	}
}
