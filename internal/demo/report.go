package demo

import (
	"fmt"
	"path"
	"strconv"
	"text/tabwriter"
	"time"
)

// report prints what was measured, side by side.
func (s *show) report(lazy, full times) error {
	s.say("")
	w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(what, left, right string) { fmt.Fprintf(w, "%s\t%s\t%s\t\n", what, left, right) }
	took := func(what string, left, right time.Duration) { row(what, seconds(left), seconds(right)) }

	way := "peel mount"
	if s.NoFUSE != nil {
		way = "peel ls, cat"
	}
	row("", way, "pull + unpack")
	took("ready to use after", lazy.ready, full.ready)
	took("first byte of a file after", lazy.first, full.first)
	took(fmt.Sprintf("%s read after", path.Base(s.img.pick)), lazy.whole, full.whole)
	took("every name listed after", lazy.listed, full.listed)
	if lazy.sum != "" && full.sum != "" {
		took("the image's own sha256sum run after", lazy.ran, full.ran)
	}
	row("fetched", s.share(lazy.wire.Bytes), s.share(full.wire.Bytes))
	row("requests", strconv.FormatInt(lazy.wire.Requests, 10), strconv.FormatInt(full.wire.Requests, 10))
	return w.Flush()
}

// share is a number of bytes, and what part of the image that is.
func (s *show) share(n int64) string {
	return fmt.Sprintf("%s (%.1f %%)", size(n), 100*float64(n)/float64(s.img.compressed))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
