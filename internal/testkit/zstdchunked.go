//go:build linux

package testkit

import (
	"bytes"
	"context"

	"github.com/peelfs/peel/layer/convert"
)

// podmanChunk is the most bytes of file per chunk: little, so that files of
// tests have several.
const podmanChunk = 64 << 10

// buildZstdChunked writes podman's dialect as peel convert does. All is in
// memory, so that there is nothing to interrupt.
//
//nolint:contextcheck,nolintlint // see above; contextcheck heeds this, and nolintlint does not see that
func buildZstdChunked(archive []byte) (Layer, error) {
	var blob bytes.Buffer
	r, err := convert.Layer(context.Background(), bytes.NewReader(archive), &blob, convert.Options{Format: convert.ZstdChunked, Chunk: podmanChunk})
	if err != nil {
		return Layer{}, err
	}
	return Layer{Desc: r.Desc, DiffID: r.DiffID, Blob: blob.Bytes()}, nil
}
