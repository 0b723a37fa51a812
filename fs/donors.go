package fs

import (
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/layer"
)

// maxDonors bounds how many layers are asked for what another is missing. To
// ask one takes some 50 µs.
const maxDonors = 256

// Lending is optional on a Cache: its layers give each other what they have in
// common.
type Lending interface {
	// Filled returns the keys of layers that have an index and data, at most so
	// many, those first that were written to last.
	Filled(most int) ([]digest.Digest, error)
	// Lender opens the data of a layer, of size bytes in so many spans. It must
	// keep nobody from removing the layer.
	Lender(key digest.Digest, size int64, spans int) (layer.Lender, error)
}

// donors are the layers in a cache, listed when the first layer of an image is
// missing something.
type donors struct {
	docs Docs
	from Lending
	keys func() []digest.Digest
}

// newDonors returns the layers of c; nil if they give nothing.
func newDonors(c Cache, log *logrus.Entry) *donors {
	from, ok := c.(Lending)
	if !ok {
		return nil
	}
	return &donors{docs: c, from: from, keys: sync.OnceValue(func() []digest.Digest {
		keys, err := from.Filled(maxDonors)
		if err != nil {
			log.WithError(err).Warn("cannot look for other layers in the cache; what they have is fetched again")
		}
		return keys
	})}
}

// of returns what lists the donors of the layer that the cache has under key:
// all layers but that one.
func (d *donors) of(key digest.Digest) func() []layer.Donor {
	if d == nil {
		return nil
	}
	return func() []layer.Donor {
		var out []layer.Donor
		for _, k := range d.keys() {
			if k != key {
				out = append(out, donor{d, k})
			}
		}
		return out
	}
}

// donor is one of them.
type donor struct {
	*donors
	key digest.Digest
}

func (d donor) Index() ([]byte, func() error, error) {
	m, err := d.docs.Map("index", d.key)
	if err != nil {
		return nil, nil, err
	}
	return m.Bytes(), m.Close, nil
}

func (d donor) Lender(size int64, spans int) (layer.Lender, error) {
	return d.from.Lender(d.key, size, spans)
}
