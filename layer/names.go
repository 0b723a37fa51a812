package layer

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Name returns the name of an entry; it lives as long as the index's bytes.
func (x *Index) Name(e Entry) string { return x.Pool.String(e.Name) }

// Blob returns the digest of the compressed layer.
func (x *Index) Blob() digest.Digest { return digest.Digest(x.Pool.String(x.Info.Blob)) }

// DiffID returns the digest of the uncompressed tar, "" if it is not proved.
func (x *Index) DiffID() digest.Digest { return digest.Digest(x.Pool.String(x.Info.DiffID)) }

// Claim returns the digest of the table of contents, or of somebody's index,
// that the index was made from; "" for a streamed layer.
func (x *Index) Claim() digest.Digest { return digest.Digest(x.Pool.String(x.Info.Claim)) }

// Origin says what the index was made from.
func (x *Index) Origin() string { return x.Pool.String(x.Info.Origin) }

// Reason says why the layer had to be streamed, "" if it did not.
func (x *Index) Reason() string { return x.Pool.String(x.Info.Reason) }

// Resident says why the layer's spans cannot be fetched by themselves, "" if
// they can. Such a layer is read from its beginning when a span is missing.
func (x *Index) Resident() string { return x.Pool.String(x.Info.Resident) }

// FilesOf returns the files of the layer that have the content of that digest.
func (x *Index) FilesOf(sum [32]byte) []File {
	first, _ := slices.BinarySearchFunc(x.Files, File{SHA256: sum}, compareFiles)
	end := first
	for end < len(x.Files) && x.Files[end].SHA256 == sum {
		end++
	}
	return x.Files[first:end]
}

func compareFiles(a, b File) int {
	return cmp.Or(bytes.Compare(a.SHA256[:], b.SHA256[:]), cmp.Compare(a.Inode, b.Inode))
}

// String returns the format's name as people write it.
func (f FormatID) String() string {
	switch f {
	case FormatTar:
		return "tar"
	case FormatGzip:
		return "gzip"
	case FormatZstd:
		return "zstd"
	case FormatEstargz:
		return "eStargz"
	case FormatZstdChunked:
		return "zstd:chunked"
	case FormatFile:
		return "file"
	}
	return "unknown"
}

// String returns "claimed" or "proved".
func (t Trust) String() string {
	switch t {
	case Claimed:
		return "claimed"
	case Proved:
		return "proved"
	}
	return "unknown"
}
