package main

import (
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer"
)

// Lender makes kept an fs.Lending.
func (k kept) Lender(key digest.Digest, size int64, spans int) (layer.Lender, error) {
	l, err := k.Cache.Lender(key, size, spans)
	if err != nil {
		return nil, err
	}
	return l, nil
}
