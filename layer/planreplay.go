package layer

// wanted is a span of one of several layers.
type wanted struct{ layer, span int }

// batch is one run of a layer, to be fetched by Prefetch.
type batch struct {
	layer int
	run   run
}

// replay puts spans, given in the order in which they will be needed, into few
// long requests, ordered by what is needed first. spans are those of each layer.
func replay(spans [][]Span, order []wanted, link Link) []batch {
	return nil
}
