package tree

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// addrSpace is the address space of every layer of these tests, one chunk.
const addrSpace = 1 << 20

func dir(name string, perm uint32) layer.Header {
	return layer.Header{Name: name, Mode: typeDir | perm}
}

func file(name string, addr, size int64) layer.Header {
	return layer.Header{Name: name, Mode: typeFile | 0o644, Addr: addr, Size: size}
}

func symlink(name, target string) layer.Header {
	return layer.Header{Name: name, Mode: typeSymlink | 0o777, Link: target}
}

func hardlink(name, target string) layer.Header {
	return layer.Header{Name: name, Hardlink: true, Link: target}
}

func whiteout(dir, name string) layer.Header {
	return layer.Header{Name: dir + "/.wh." + name, Mode: typeFile}
}

func opaque(dir string) layer.Header { return whiteout(dir, ".wh..opq") }

func index(headers []layer.Header) (*layer.Index, error) {
	b := layer.NewBuilder()
	for i := range headers {
		if err := b.Add(&headers[i]); err != nil {
			return nil, err
		}
	}
	info := layer.InfoInput{
		Blob: digest.FromString("layer"), BlobSize: addrSpace, AddrSize: addrSpace,
		Format: layer.FormatTar, Trust: layer.Proved,
	}
	spans := []layer.Span{{Len: addrSpace, CLen: addrSpace, Chunks: flat.Range{Count: 1}}}
	return b.Index(info, layer.Cut{Spans: spans, Chunks: []layer.Chunk{{Len: addrSpace}}})
}

func mergeAll(tb testing.TB, layers ...[]layer.Header) *Tree {
	tb.Helper()
	t, err := Merge(indexes(tb, layers...))
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func indexes(tb testing.TB, layers ...[]layer.Header) []*layer.Index {
	tb.Helper()
	var xs []*layer.Index
	for _, headers := range layers {
		x, err := index(headers)
		if err != nil {
			tb.Fatal(err)
		}
		xs = append(xs, x)
	}
	return xs
}
