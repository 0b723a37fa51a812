package local

import "github.com/peelfs/peel/manifest"

// What is read of a place. Bytes, unless something else is said.
const (
	maxDocument  = manifest.MaxDocument // of a manifest, an index, a configuration, manifest.json, repositories
	maxV1        = 1 << 20              // of the json of one legacy layer
	maxEntries   = 100_000              // members of an archive, of any type
	maxName      = 4096                 // of a member's name or link target
	maxNames     = 16 << 20             // of all names and link targets of an archive
	maxLinks     = 40                   // links followed from one name to a file
	maxSteps     = 1024                 // components of names on that way
	maxImages    = 4096                 // images of a place, and entries of an index
	maxTags      = 1024                 // names of one image
	maxReference = 1024                 // of such a name
	maxLayers    = 512                  // of an image
	maxDepth     = 4                    // indexes within indexes
	maxNested    = 64                   // indexes read in search of a name
	maxReferring = 1024                 // manifests read in search of a subject
	maxUnpacked  = 1 << 40              // of an archive that is compressed as a whole
	maxWindow    = 128 << 20            // of a zstd frame, what zstd --long=27 and --ultra ask for
)
