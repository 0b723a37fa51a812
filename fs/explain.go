package fs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/layer"
)

// Explanation is where the time of a mount's readers went, and what it cost,
// since the mount answered. Reads are those of the server, of which a read(2)
// may take several: what the kernel's page cache answers reaches no server.
type Explanation struct {
	Status
	Activity
	Retries   int64            `json:"retries"` // of Requests
	Hedges    int64            `json:"hedges"`  // asked once more, since the first byte was late
	HedgesWon int64            `json:"hedges_won"`
	Links     []LinkEstimate   `json:"links"`
	Slowest   []ExplainedRead  `json:"slowest"`        // at most ten, the slowest first
	Layers    []ExplainedLayer `json:"layers"`         // bottom first; before an early mount is open, those that can be read by now
	Fill      []FillLayer      `json:"fill,omitempty"` // bottom first; none unless the mount is being filled
}

// Activity is what became of reads. Compressed bytes are those of blobs.
type Activity struct {
	Reads           ReadsByOrigin `json:"reads"`
	RangeRequests   int64         `json:"range_requests"`        // those for the whole of a layer included
	DemandedBytes   int64         `json:"demanded_compressed"`   // of spans fetched because somebody waited
	GuessedBytes    int64         `json:"guessed_compressed"`    // of spans fetched on a guess, beside those
	PrefetchedBytes int64         `json:"prefetched_compressed"` // of spans fetched since earlier runs or the image's maker say so
	FilledBytes     int64         `json:"filled_compressed"`     // of spans fetched to have the image whole
	ReusedBytes     int64         `json:"reused_compressed"`     // of spans that another cached layer had
	TouchedBytes    int64         `json:"touched_compressed"`    // of spans that somebody has read from
	UnusedBytes     int64         `json:"unused_compressed"`     // of spans guessed or prefetched, and not read from so far
	BetweenBytes    int64         `json:"between_compressed"`    // fetched for nothing, as it lay between spans
	WrongSpans      int64         `json:"wrong_spans"`           // how often one had not its digest and was asked for again
}

// ReadsByOrigin counts reads by the farthest place that bytes came from.
type ReadsByOrigin struct {
	Store   layer.Count `json:"store"`
	Reuse   layer.Count `json:"reuse"`
	Network layer.Count `json:"network"`
}

// ExplainedRead is a read that took long.
type ExplainedRead struct {
	At    time.Time     `json:"at"`
	Took  time.Duration `json:"took_ns"`
	Path  string        `json:"path,omitempty"` // "" where no file of the image has the bytes
	Off   int64         `json:"off"`            // in the file
	Size  int64         `json:"size"`
	Layer string        `json:"layer"` // digest
	Addr  int64         `json:"addr"`  // in the layer's address space
	From  string        `json:"from"`
}

// ExplainedLayer is what became of the reads of one layer.
type ExplainedLayer struct {
	Digest string `json:"digest"`
	Activity
	BytesPresent int64 `json:"bytes_present"`
	BytesTotal   int64 `json:"bytes_total"`
}

// LinkEstimate is what is known of the way to a host. Zero is unknown.
type LinkEstimate struct {
	Host      string        `json:"host"`
	RoundTrip time.Duration `json:"round_trip_ns"`
	Bandwidth int64         `json:"bandwidth"` // bytes a second
	Requests  int64         `json:"requests"`
	Hedges    int64         `json:"hedges"`
}

// maxSlowest is how many reads of all layers are told of.
const maxSlowest = 10

// Explain tells what became of the reads of layers. t is the tree of their
// image, or nil while it is not known; then files have no names.
func Explain(layers []*layer.Layer, t *tree.Tree) Explanation {
	e := Explanation{Links: []LinkEstimate{}, Slowest: []ExplainedRead{}, Layers: []ExplainedLayer{}}
	var at []spot
	for i, l := range layers {
		st, x := l.Stats(), l.Index()
		one := ExplainedLayer{Digest: x.Blob().String(), Activity: activity(st), BytesPresent: l.Present(), BytesTotal: x.Info.AddrSize}
		e.Layers = append(e.Layers, one)
		e.Activity.add(one.Activity)
		e.BytesPresent += one.BytesPresent
		e.BytesTotal += one.BytesTotal
		for _, s := range st.Slowest {
			e.Slowest = append(e.Slowest, ExplainedRead{
				At: s.At, Took: s.Took, Size: s.Size, Layer: one.Digest, Addr: s.Addr, From: s.Origin.String(),
			})
			at = append(at, spot{layer: uint32(i), addr: s.Addr})
		}
	}
	if t != nil {
		for k, f := range filesAt(t, at) {
			e.Slowest[k].Path, e.Slowest[k].Off = f.path, f.off
		}
	}
	slices.SortStableFunc(e.Slowest, func(a, b ExplainedRead) int { return cmp.Compare(b.Took, a.Took) })
	e.Slowest = e.Slowest[:min(len(e.Slowest), maxSlowest)]
	return e
}

func activity(s layer.Stats) Activity {
	return Activity{
		Reads: ReadsByOrigin{
			Store: s.Reads[layer.FromStore], Reuse: s.Reads[layer.FromReuse], Network: s.Reads[layer.FromNetwork],
		},
		RangeRequests: s.Requests, DemandedBytes: s.Demanded, GuessedBytes: s.Guessed, PrefetchedBytes: s.Fetched,
		FilledBytes: s.Filled, ReusedBytes: s.Reused, TouchedBytes: s.Touched, UnusedBytes: s.Unused,
		BetweenBytes: s.Between, WrongSpans: s.Again,
	}
}

func (a *Activity) add(b Activity) {
	for _, c := range [][2]*layer.Count{
		{&a.Reads.Store, &b.Reads.Store}, {&a.Reads.Reuse, &b.Reads.Reuse}, {&a.Reads.Network, &b.Reads.Network},
	} {
		c[0].Count += c[1].Count
		c[0].Bytes += c[1].Bytes
		c[0].Waited += c[1].Waited
	}
	a.RangeRequests += b.RangeRequests
	a.DemandedBytes += b.DemandedBytes
	a.GuessedBytes += b.GuessedBytes
	a.PrefetchedBytes += b.PrefetchedBytes
	a.FilledBytes += b.FilledBytes
	a.ReusedBytes += b.ReusedBytes
	a.TouchedBytes += b.TouchedBytes
	a.UnusedBytes += b.UnusedBytes
	a.BetweenBytes += b.BetweenBytes
	a.WrongSpans += b.WrongSpans
}

// spot is an address of a layer.
type spot struct {
	layer uint32
	addr  int64
}

// file is a spot as people know it.
type file struct {
	path string // "" for none
	off  int64
}

// filesAt finds the files that have the bytes at some spots, by one pass over
// all files: nobody asks often.
func filesAt(t *tree.Tree, at []spot) []file {
	out := make([]file, len(at))
	byLayer := map[uint32][]int{} // of at
	for k, p := range at {
		byLayer[p.layer] = append(byLayer[p.layer], k)
	}
	var extents []layer.Extent
	for row := range t.Inodes {
		wanted := byLayer[t.Inodes[row].Layer]
		if len(wanted) == 0 {
			continue
		}
		extents = t.Data(uint32(row), extents[:0])
		for _, x := range extents {
			for _, k := range wanted {
				if d := at[k].addr - x.Addr; d >= 0 && d < x.Len && out[k].path == "" {
					out[k] = file{path: t.Path(uint32(row)), off: x.Off + d}
				}
			}
		}
	}
	return out
}

// Foresight is what a mount fetches before it is read.
type Foresight struct {
	From       string `json:"from"`       // who says so; "" if nobody does
	Spans      int    `json:"spans"`      // that are asked for
	Compressed int64  `json:"compressed"` // bytes of these
}

// Foresee tells what Anticipate would fetch. A profile that is attached to the
// image is looked for and kept as by that.
func (m *Image) Foresee(ctx context.Context, o *ProfileOptions) Foresight {
	if m.Manifest.Reference.Transport() != "" {
		return Foresight{} // it is read where it lies
	}
	a := m.foresee(ctx, o)
	f := Foresight{From: a.from, Spans: len(a.order)}
	for _, w := range a.order {
		f.Compressed += w.Layer.Index().Spans[w.Span].CLen
	}
	return f
}

// Opened returns the image if it is open by now, or nil.
func (e *Early) Opened() *Image {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.image
}

// RefusesRanges reports whether a layer.Index's Reason is that the registry
// refuses byte ranges.
func RefusesRanges(reason string) bool { return strings.HasPrefix(reason, refused) }
