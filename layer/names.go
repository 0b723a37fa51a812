package layer

import "github.com/opencontainers/go-digest"

// Name returns the name of an entry; it lives as long as the index's bytes.
func (x *Index) Name(e Entry) string { return x.Pool.String(e.Name) }

// Blob returns the digest of the compressed layer.
func (x *Index) Blob() digest.Digest { return digest.Digest(x.Pool.String(x.Info.Blob)) }

// DiffID returns the digest of the uncompressed tar, "" if it is not proved.
func (x *Index) DiffID() digest.Digest { return digest.Digest(x.Pool.String(x.Info.DiffID)) }

// TOC returns the digest of the table of contents, "" for a streamed layer.
func (x *Index) TOC() digest.Digest { return digest.Digest(x.Pool.String(x.Info.TOC)) }

// Reason says why the layer had to be streamed, "" if it did not.
func (x *Index) Reason() string { return x.Pool.String(x.Info.Reason) }

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
