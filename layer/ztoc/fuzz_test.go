package ztoc

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: what is decoded is coherent, and the same after it was encoded.
func FuzzDecode(f *testing.F) {
	for _, raw := range small(f) {
		f.Add(raw)
	}
	f.Add(valid().encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := Decode(raw)
		if err != nil {
			if x != nil || !errors.Is(err, ErrFormat) {
				t.Fatalf("%v with error %v", x, err)
			}
			return
		}
		var names int
		for _, file := range x.Files {
			names += len(file.Name) + len(file.Linkname)
		}
		if names > maxSharing*len(raw) {
			t.Errorf("names of %d bytes from %d bytes", names, len(raw))
		}
		again, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		twice, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if d := same(x, twice); d != "" {
			t.Error(d)
		}
	})
}

// FuzzParseIndex: what is parsed is the same after it was encoded, but that it
// is of version 2 then.
func FuzzParseIndex(f *testing.F) {
	raw, _, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(bytes.Replace(raw, []byte("index.v2"), []byte("index.v1"), 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := ParseIndex(raw)
		if err != nil {
			if x != nil || !errors.Is(err, ErrFormat) {
				t.Fatalf("%v with error %v", x, err)
			}
			return
		}
		again, _, err := x.Encode()
		if err != nil {
			if len(x.Layers)+len(x.Prefetch) == 0 || len(raw) > maxIndex/6 {
				return
			}
			t.Fatal(err)
		}
		twice, err := ParseIndex(again)
		if err != nil {
			t.Fatal(err)
		}
		x.Version, x.Subject = 2, nil
		if d := cmp.Diff(x, twice); d != "" {
			t.Error(d)
		}
	})
}

// FuzzBuild: a blob that can be built is described coherently.
func FuzzBuild(f *testing.F) {
	archive := tarOf(f, entries()[3:9])
	f.Add(archive)
	f.Add(gzipOf(f, archive, 6))
	f.Add(append(gzipOf(f, archive[:1024], 0), gzipOf(f, archive[1024:], 9)...))
	f.Fuzz(func(t *testing.T, blob []byte) {
		x, err := Build(t.Context(), bytes.NewReader(blob), BuildOptions{SpanSize: 512})
		if err != nil {
			return
		}
		raw, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if d := same(x, again); d != "" {
			t.Error(d)
		}
	})
}
