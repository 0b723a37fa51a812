package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/layer"
)

const (
	// explainRoute is where the server of a mount explains itself.
	explainRoute = "GET /explain"
	// explainTimeout bounds the wait for that: it looks at every file of the
	// image, to know the names of those that were read slowly.
	explainTimeout = 30 * time.Second
)

// explainRoute answers what peel explain asks of the server of a mount.
func (s *session) explainRoute(srv *fs.Server) fs.Route {
	return fs.Route{Pattern: explainRoute, Handler: func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.explain(srv)) // the asker has gone if this fails
	}}
}

// explain is what a mount's server knows of where the time of its readers went.
func (s *session) explain(srv *fs.Server) fs.Explanation {
	e := fs.Explain(s.layers(), s.tree())
	wire := s.from.Stats()
	e.Status, e.Retries, e.Hedges, e.HedgesWon = s.status(srv), wire.Retries, wire.Hedges, wire.HedgesWon
	e.Fill = s.filling.Layers()
	for _, l := range s.from.Registries().Links() {
		e.Links = append(e.Links, fs.LinkEstimate{
			Host: l.Host, RoundTrip: l.RoundTrip, Bandwidth: l.Bandwidth, Requests: l.Requests, Hedges: l.Hedges,
		})
	}
	return e
}

// tree is that of the image, or nil while it is not known.
func (s *session) tree() *tree.Tree {
	m := s.image
	if s.early != nil {
		m = s.early.Opened()
	}
	if m == nil {
		return nil
	}
	return m.Tree
}

func (o *explainOptions) explainMount(ctx context.Context, root string, m fs.Status) error {
	if m.State != fs.StateServing {
		return errors.New(m.LastError)
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	var e fs.Explanation
	if err := fs.Ask(ctx, root, m.Mountpoint, fs.Question{Pattern: explainRoute, Out: &e}); err != nil {
		return err
	}
	e.Record, e.State = m.Record, m.State
	if o.json {
		return writeJSON(o.out, e)
	}
	return printMount(o.out, &e)
}

// printMount writes the explanation of a mount for people.
func printMount(w io.Writer, e *fs.Explanation) error {
	fmt.Fprintf(w, "Mount:     %s, %s ago\n", shown(e.Mountpoint, isTerminal(w)), ago(e.Since))
	fmt.Fprintf(w, "Image:     %s (%s)\n", e.Reference, shortDigest(e.Digest))
	fmt.Fprintf(w, "Present:   %s of %s uncompressed (%s)\n\n", humanSize(e.BytesPresent), humanSize(e.BytesTotal),
		percent(e.BytesPresent, e.BytesTotal))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "READS FROM\tCOUNT\tBYTES\tWAITED\tEACH")
	for _, r := range []struct {
		name string
		layer.Count
	}{{"store", e.Reads.Store}, {"reuse", e.Reads.Reuse}, {"network", e.Reads.Network}} {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", r.name, r.Count.Count, humanSize(r.Bytes), seconds(r.Waited),
			seconds(r.Waited/time.Duration(max(r.Count.Count, 1))))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "The kernel's page cache answers without asking the server; such reads are not among these.\n\n")
	printFetched(w, e)
	if err := printLinks(w, e); err != nil {
		return err
	}
	return printSlowest(w, e.Slowest)
}

// printFetched tells what was fetched, on whose account.
func printFetched(w io.Writer, e *fs.Explanation) {
	fmt.Fprintf(w, "Requests:  %d to registries, which sent %s; %d for parts of layers\n", e.Requests, humanSize(e.BytesFetched), e.RangeRequests)
	if e.Retries+e.Hedges > 0 {
		fmt.Fprintf(w, "           %d asked again after an error, %d since the first answer was late, %d of these were faster\n",
			e.Retries, e.Hedges, e.HedgesWon)
	}
	fmt.Fprintf(w, "Demanded:  %s compressed, for reads that waited\n", humanSize(e.DemandedBytes))
	if ahead := e.GuessedBytes + e.PrefetchedBytes; ahead > 0 {
		fmt.Fprintf(w, "Ahead:     %s guessed, %s prefetched; %s of it was read, %s has not been so far\n", humanSize(e.GuessedBytes),
			humanSize(e.PrefetchedBytes), percent(ahead-e.UnusedBytes, ahead), humanSize(e.UnusedBytes))
	}
	if e.FilledBytes > 0 {
		fmt.Fprintf(w, "Filled:    %s, so as to have the image whole\n", humanSize(e.FilledBytes))
	}
	if e.ReusedBytes > 0 {
		fmt.Fprintf(w, "Reused:    %s that other layers in the cache had\n", humanSize(e.ReusedBytes))
	}
	if e.BetweenBytes > 0 {
		fmt.Fprintf(w, "Between:   %s compressed lay between spans and were thrown away\n", humanSize(e.BetweenBytes))
	}
	fmt.Fprintf(w, "Touched:   %s compressed in spans that were read from\n", humanSize(e.TouchedBytes))
	if e.WrongSpans > 0 {
		fmt.Fprintf(w, "Wrong:     %d spans did not have their digest and were asked for again\n", e.WrongSpans)
	}
	printFill(w, e.Fill)
}

// printFill tells how far the rest of the image has come.
func printFill(w io.Writer, layers []fs.FillLayer) {
	if len(layers) == 0 {
		return
	}
	var done, total int64
	proved := 0
	for _, l := range layers {
		done += l.Done
		total += l.Total
		if l.Proved {
			proved++
		}
	}
	fmt.Fprintf(w, "Fill:      %s of %s compressed (%s); %d of %d layers proved\n", humanSize(done), humanSize(total),
		percent(done, total), proved, len(layers))
	for _, l := range layers {
		switch {
		case l.Error != "":
			fmt.Fprintf(w, "           %s %s: %s\n", shortDigest(l.Digest.String()), l.State, oneLine(l.Error))
		case l.State == fs.FillFetching, l.State == fs.FillProving:
			fmt.Fprintf(w, "           %s is %s\n", shortDigest(l.Digest.String()), map[string]string{
				fs.FillFetching: "being fetched", fs.FillProving: "being proved",
			}[l.State])
		}
	}
}

// printLinks tells what is known of the links to hosts.
func printLinks(w io.Writer, e *fs.Explanation) error {
	if len(e.Links) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tROUND TRIP\tBANDWIDTH\tREQUESTS\tHEDGED")
	for _, l := range e.Links {
		roundTrip, bandwidth := "unknown", "unknown"
		if l.RoundTrip > 0 {
			roundTrip = seconds(l.RoundTrip)
		}
		if l.Bandwidth > 0 {
			bandwidth = humanSize(l.Bandwidth) + "/s"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\n", oneLine(l.Host), roundTrip, bandwidth, l.Requests, l.Hedges)
	}
	return t.Flush()
}

// printSlowest tells of the slowest reads.
func printSlowest(w io.Writer, reads []fs.ExplainedRead) error {
	if len(reads) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SLOWEST\tFROM\tSIZE\tFILE")
	for _, r := range reads {
		what := fmt.Sprintf("%s, from byte %d", shown(r.Path, isTerminal(w)), r.Off)
		if r.Path == "" {
			what = fmt.Sprintf("layer %s, address %d", shortDigest(r.Layer), r.Addr)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", seconds(r.Took), r.From, humanSize(r.Size), what)
	}
	return t.Flush()
}

// seconds is a duration with three digits that count.
func seconds(d time.Duration) string {
	switch {
	case d >= 100*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond))
}
