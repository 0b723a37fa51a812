package layer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestReadIndexHostile(t *testing.T) {
	t.Parallel()
	sum := `"chunkDigest":"sha256:` + hexSum([]byte("x")) + `"`
	long := strings.Repeat("v", 100000)
	for _, c := range []struct {
		name    string
		entries []string
		want    string
	}{
		{"escaping name", []string{`{"name":"../../etc/passwd","type":"reg"}`}, "leaves the root"},
		{"escaping absolute name", []string{`{"name":"/../x","type":"dir"}`}, "leaves the root"},
		{"escaping hard link", []string{`{"name":"a","type":"hardlink","linkName":"../b"}`}, "leaves the root"},
		{"hard link cycle", []string{`{"name":"a","type":"hardlink","linkName":"b"}`, `{"name":"b","type":"hardlink","linkName":"a"}`}, "cycle"},
		{"symlink cycle", []string{`{"name":"a","type":"symlink","linkName":"b"}`, `{"name":"b","type":"symlink","linkName":"a"}`, `{"name":"a/x","type":"dir"}`}, "symlinks on the way"},
		{"unknown type", []string{`{"name":"a","type":"door"}`}, `type "door"`},
		{"negative size", []string{`{"name":"a","type":"reg","size":-5,"offset":5,` + sum + `}`}, "-5"},
		{"negative offset", []string{`{"name":"a","type":"reg","size":5,"offset":-5,` + sum + `}`}, "chunk at -5"},
		{"offset beyond the payload", []string{`{"name":"a","type":"reg","size":5,"offset":1000,` + sum + `}`}, "chunk at 1000"},
		{"negative inner offset", []string{`{"name":"a","type":"reg","size":5,"offset":5,"innerOffset":-1,` + sum + `}`}, "inner offset"},
		{"huge inner offset", []string{`{"name":"a","type":"reg","size":5,"offset":5,"innerOffset":9223372036854775807,` + sum + `}`}, "inner offset"},
		{"huge chunk", []string{`{"name":"a","type":"reg","size":1000000000000,"offset":5,` + sum + `}`}, "exceed the limit of 134217728"},
		{"negative chunk", []string{`{"name":"a","type":"reg","size":5,"chunkSize":-1,"offset":5,` + sum + `}`}, "chunk [0, +-1)"},
		{"chunk beyond its file", []string{`{"name":"a","type":"reg","size":5,"chunkSize":6,"offset":5,` + sum + `}`}, "chunk [0, +6) of 5"},
		{"chunks overlap in the file", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`, `{"type":"chunk","chunkOffset":4,"offset":9,` + sum + `}`}, "after 5"},
		{"chunks with a gap", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`, `{"type":"chunk","chunkOffset":6,"offset":9,` + sum + `}`}, "after 5"},
		{"chunks missing", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`}, "cover 5 bytes of 9"},
		{"chunk of nothing", []string{`{"type":"chunk","offset":5,"chunkSize":1,` + sum + `}`}, "without its file"},
		{"chunk of another file", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,` + sum + `}`, `{"type":"chunk","name":"b","chunkOffset":5,"offset":9,` + sum + `}`}, "without its file"},
		{"chunks overlap in the blob", []string{`{"name":"a","type":"reg","size":9,"offset":5,` + sum + `}`, `{"name":"b","type":"reg","size":8,"offset":5,` + sum + `}`}, "overlap"},
		{"chunks overlap when decompressed", []string{`{"name":"a","type":"reg","size":9,"offset":5,` + sum + `}`, `{"name":"b","type":"reg","size":9,"offset":5,"innerOffset":8,` + sum + `}`}, "overlap"},
		{"end before the beginning", []string{`{"name":"a","type":"reg","size":9,"offset":5,"endOffset":4,` + sum + `}`}, "ends at 4"},
		{"no chunk digest", []string{`{"name":"a","type":"reg","size":9,"chunkSize":5,"offset":5,"digest":"sha256:00"}`}, "no sha256"},
		{"odd chunk digest", []string{`{"name":"a","type":"reg","size":9,"offset":5,"chunkDigest":"sha256:` + strings.Repeat("z", 64) + `"}`}, "chunk digest"},
		{"sha512 chunk digest", []string{`{"name":"a","type":"reg","size":9,"offset":5,"chunkDigest":"sha512:00"}`}, "no sha256"},
		{"user number", []string{`{"name":"a","type":"dir","uid":-1}`}, "user number -1"},
		{"group number", []string{`{"name":"a","type":"dir","gid":4294967295}`}, "group number"},
		{"device", []string{`{"name":"a","type":"char","devMajor":-7}`}, "major device number -7"},
		{"time", []string{`{"name":"a","type":"dir","modtime":"yesterday"}`}, "time"},
		{"huge xattr", []string{`{"name":"a","type":"dir","xattrs":{"user.x":"` + long + `"}}`}, "75000 exceed the limit of 65536"},
		{"huge entry", []string{`{"name":"a","type":"dir","x":"` + strings.Repeat(long, 42) + `"}`}, "bytes of one entry"},
		{"not JSON", []string{`{"name":"a"`}, "invalid character"},
		{"number for a name", []string{`{"name":5}`}, "cannot unmarshal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			toc := tocText{entries: c.entries}
			p, d := stargzOf(t, make([]byte, 1000), toc.String(), footer51)
			refused(t, &blob{bytes: p}, d, ErrMalformed, c.want)
			p, d = zstdChunkedOf(t, make([]byte, 1000), toc.String(), zstdDialects()[0])
			refused(t, &blob{bytes: p}, d, ErrMalformed, c.want)
		})
	}
}

func refused(t *testing.T, src Source, d ocispec.Descriptor, want error, texts ...string) {
	t.Helper()
	x, err := ReadIndex(t.Context(), src, d)
	if !errors.Is(err, want) || x != nil {
		t.Fatalf("got %v", err)
	}
	for _, text := range append(texts, "layer "+d.Digest.String()) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func TestReadIndexPosition(t *testing.T) {
	t.Parallel()
	p, d := zstdChunkedOf(t, make([]byte, 1000), (&tocText{}).String(), zstdDialects()[0])
	for _, c := range []struct{ at, want string }{
		{"", ""},
		{"1:2:3", "is no position"},
		{"-1:2:3:1", "is no position"},
		{"1008:x:3:1", "is no position"},
		{"1008:99999999999:3:1", "of a blob of"},
		{"9223372036854775807:9223372036854775807:3:1", "of a blob of"},
		{"0:10:3:1", "of a blob of"},
		{"1008:0:3:1", "of a blob of"},
		{"1008:20:3:2", "of type 2"},
		{"1008:20:999999999999:1", "exceed the limit"},
	} {
		t.Run(c.at, func(t *testing.T) {
			t.Parallel()
			bad := d
			bad.Annotations = map[string]string{}
			for k, v := range d.Annotations {
				bad.Annotations[k] = v
			}
			bad.Annotations["io.github.containers.zstd-chunked.manifest-position"] = c.at
			if c.want == "" {
				if _, err := ReadIndex(t.Context(), &blob{bytes: p}, bad); err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, &blob{bytes: p}, bad, ErrMalformed, c.want, "manifest-position")
		})
	}
}

// TestReadIndexMillion: a million names are refused before they fill the memory.
func TestReadIndexMillion(t *testing.T) {
	t.Parallel()
	b := newTOC(1 << 40)
	n := 0
	entries := readerFunc(func(p []byte) (int, error) {
		n++
		if n == 1 {
			return copy(p, `{"entries":[{"name":"first","type":"dir"}`), nil
		}
		return copy(p, fmt.Sprintf(",{\"name\":\"%d\",\"type\":\"fifo\"}", n)), nil
	})
	b.b.entries = maxEntries - 1000
	err := b.read(entries)
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "entries of the layer: 1000001 exceed the limit of 1000000") {
		t.Errorf("got %v", err)
	}
}

func TestReadIndexVerifies(t *testing.T) {
	t.Parallel()
	toc := (&tocText{entries: []string{`{"name":"a","type":"dir"}`, `{"name":"b","type":"fifo"}`}}).String()
	other := strings.Replace(toc, "fifo", "dir", 1)
	broken := strings.Replace(toc, "fifo", "what", 1)
	z := zstdDialects()[1]
	for _, c := range []struct {
		name string
		make func(toc string) ([]byte, ocispec.Descriptor)
	}{
		{"eStargz", func(toc string) ([]byte, ocispec.Descriptor) { return stargzOf(t, make([]byte, 1000), toc, footer51) }},
		{"zstd:chunked", func(toc string) ([]byte, ocispec.Descriptor) { return zstdChunkedOf(t, make([]byte, 1000), toc, z) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, d := c.make(toc)
			want, _ := TOCDigest(d)
			for _, text := range []string{other, broken} {
				served, e := c.make(text)
				got, _ := TOCDigest(e)
				if z := "io.containers.zstd-chunked.manifest-position"; e.Annotations[z] != "" {
					d.Annotations[z] = e.Annotations[z]
				}
				refused(t, &blob{bytes: served}, d, ErrVerify, "table of contents", want.String(), got.String())
			}
			_, d = c.make(toc)
			end := bytes.LastIndex(p, p[len(p)-51:]) // of the table, at the latest
			var flips sync.WaitGroup                 // at once, as most of the time is for pauses
			for at := 1000 + 8; at < end; at++ {
				flips.Go(func() {
					flipped := bytes.Clone(p)
					flipped[at] ^= 0x20
					_, err := ReadIndex(t.Context(), &blob{bytes: flipped}, d)
					// A table read right in spite of a flipped byte in a gzip header is right.
					if err != nil && !errors.Is(err, ErrVerify) {
						t.Errorf("byte %d flipped: %v", at, err)
					}
					if err == nil && c.name != "eStargz" {
						t.Errorf("byte %d flipped: no error", at)
					}
				})
			}
			flips.Wait()
		})
	}
}

func TestReadIndexSourceFails(t *testing.T) {
	t.Parallel()
	toc := (&tocText{entries: []string{`{"name":"a","type":"dir"}`}}).String()
	for name, make := range map[string]func() ([]byte, ocispec.Descriptor){
		"eStargz":      func() ([]byte, ocispec.Descriptor) { return stargzOf(t, noise(1000, 1), toc, footer51) },
		"zstd:chunked": func() ([]byte, ocispec.Descriptor) { return zstdChunkedOf(t, noise(1000, 1), toc, zstdDialects()[0]) },
	} {
		p, d := make()
		for after := range int64(60) {
			_, err := ReadIndex(t.Context(), &failing{blob: blob{bytes: p}, after: after, err: errNet}, d)
			if !errors.Is(err, errNet) || errors.Is(err, ErrVerify) || errors.Is(err, ErrMalformed) {
				t.Errorf("%s after %d: %v", name, after, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := ReadIndex(ctx, &stuck{blob{bytes: p}}, d); !errors.Is(err, context.Canceled) {
			t.Errorf("%s cancelled: %v", name, err)
		}
	}
}

func TestVersionOfTable(t *testing.T) {
	t.Parallel()
	p, d := stargzOf(t, make([]byte, 1000), `{"entries":[],"version":2}`, footer51)
	if _, err := ReadIndex(t.Context(), &blob{bytes: p}, d); !errors.Is(err, ErrPlain) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

func TestDecodeSpanVerifies(t *testing.T) {
	t.Parallel()
	p, d := stargz(t, tarball(t), estargz.WithChunkSize(200000))
	x, err := ReadIndex(t.Context(), &blob{bytes: p}, d)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range x.Spans {
		dst := make([]byte, s.Len)
		bad := bytes.Clone(p[s.Off:][:s.CLen])
		bad[len(bad)/3] ^= 4
		want := sha256Digest(x.Chunks[s.Chunks.First].SHA256).String()
		if err := x.decodeSpan(i, bad, dst); err != nil && (!errors.Is(err, ErrVerify) ||
			!strings.Contains(err.Error(), fmt.Sprintf("span %d:", i)) || !strings.Contains(err.Error(), want)) {
			t.Errorf("span %d flipped: %v", i, err)
		} else if err == nil && !bytes.Equal(dst, addresses(t, x, &blob{bytes: p})[s.Addr:][:s.Len]) {
			t.Errorf("span %d flipped: other bytes and no error", i)
		}
		if err := x.decodeSpan(i, p[s.Off:][:9], dst); !errors.Is(err, ErrVerify) {
			t.Errorf("span %d short: %v", i, err)
		}
	}
}

// FuzzTOC: any table gives an error or an index that can be walked.
func FuzzTOC(f *testing.F) {
	sum := hexSum([]byte("x"))
	f.Add([]byte(`{"version":1,"entries":[{"name":"a/","type":"dir","mode":493},{"name":"a/b","type":"reg","size":9,"chunkSize":5,"offset":5,"chunkDigest":"sha256:` + sum +
		`"},{"type":"chunk","chunkOffset":5,"offset":9,"chunkDigest":"sha256:` + sum + `"},{"name":"c","type":"hardlink","linkName":"a/b"}]}`))
	f.Add([]byte(`{"entries":[{"name":"z","type":"reg","size":9,"offset":5,"chunkType":"zeros"},{"name":"a","type":"symlink","linkName":"b"},{"name":"a/.wh.x","type":"reg"}]}`))
	f.Add([]byte(`{"entries":[{"name":"z","type":"reg","size":9,"offset":5,"innerOffset":3,"digest":"sha256:` + sum + `","xattrs":{"user.a":"MQ=="}},{"name":"y","type":"reg","size":9,"offset":5,"innerOffset":12,"digest":"sha256:` + sum + `"}]}`))
	f.Add([]byte(`{"entries":[{"name":"n","type":"char","devMajor":1,"uid":5,"modtime":"2023-11-14T22:13:20.5Z"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newTOC(1000)
		b.landmarks = len(text)%2 == 0
		if b.read(bytes.NewReader(text)) != nil {
			return
		}
		x, err := b.index(InfoInput{BlobSize: 1000, Format: FormatEstargz, Trust: Claimed})
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if _, err := Decode(x.Encode()); err != nil {
			t.Fatal(err)
		}
		walkTables(t, x)
	})
}

func BenchmarkTOC(b *testing.B) {
	var toc tocText
	for i := range 70000 {
		e, err := json.Marshal(&estargz.TOCEntry{
			Name: fmt.Sprintf("usr/lib/python3/dist-packages/package%d/module%d.py", i/50, i), Type: "reg", Size: 1000, Mode: 0o644,
			ModTime3339: "2023-11-14T22:13:20Z", Offset: int64(i)*2000 + 1, Digest: "sha256:" + hexSum(fmt.Append(nil, i)), ChunkDigest: "sha256:" + hexSum(fmt.Append(nil, i)),
		})
		if err != nil {
			b.Fatal(err)
		}
		toc.add(string(e))
	}
	text := []byte(toc.String())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		t := newTOC(1 << 40)
		if err := t.read(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
		if _, err := t.index(InfoInput{BlobSize: 1 << 40, Format: FormatEstargz, Trust: Claimed}); err != nil {
			b.Fatal(err)
		}
	}
}
