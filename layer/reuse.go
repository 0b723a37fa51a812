package layer

import "github.com/opencontainers/go-digest"

// Donor is a layer whose store may have bytes that another layer needs.
type Donor struct {
	Name  digest.Digest // for people
	Index *Index
	Store Store
}
