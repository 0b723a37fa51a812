package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// imageExplanation is an inspection with what to do about it.
type imageExplanation struct {
	inspection
	Lazy      int              `json:"lazy"`       // how many layers are read lazily
	ReadWhole int64            `json:"read_whole"` // compressed bytes of the others
	Layers    []explainedLayer `json:"layers"`     // in place of the inspection's
	Profiles  []keptProfile    `json:"profiles"`   // that the cache has
	Ahead     fs.Foresight     `json:"ahead"`      // what peel mount would fetch before it is read
}

// keptProfile is what earlier runs have shown of a workload.
type keptProfile struct {
	Entrypoint string    `json:"entrypoint"`
	Runs       int       `json:"runs"`
	OwnRuns    int       `json:"own_runs"` // of this machine
	Updated    time.Time `json:"updated"`
	Touches    int       `json:"touches"`
}

type explainedLayer struct {
	layerInspection
	judgement
}

// judgement is why a layer is read as it is.
type judgement struct {
	Why    string `json:"why"`
	Advice string `json:"advice,omitempty"` // what would make it lazy; "" if nothing has to or nothing can
}

func (o *explainOptions) explainImage(ctx context.Context, arg string) error {
	r, err := o.request(arg)
	if err := errors.Join(err, manifest.CheckEntrypoint(o.entrypoint)); err != nil {
		return err
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	return o.browse(ctx, r, func(s *session) (err error) {
		e := explainImage(inspect(s), s.image.Manifest.Layers)
		e.Ahead = s.image.Foresee(ctx, &fs.ProfileOptions{
			Cache: kept{s.cache}, Registry: s.from, Pull: r.pull, Entrypoint: o.entrypoint, Log: log,
		})
		if e.Profiles, err = keptProfiles(s, log); err != nil {
			return err
		}
		if o.json {
			return writeJSON(o.out, e)
		}
		return e.print(o.out)
	})
}

// keptProfiles are those of the image that the cache has.
func keptProfiles(s *session, log *logrus.Entry) ([]keptProfile, error) {
	out := []keptProfile{}
	names, err := fs.ProfileNames(shelf{s.cache}, s.image.Manifest.Desc.Digest)
	for _, n := range names {
		if k := fs.ReadProfile(s.cache, n, log); k.Profile != nil {
			p := k.Profile
			out = append(out, keptProfile{n.Entrypoint, p.Runs, k.Own, p.Updated, len(p.Touches)})
		}
	}
	return out, err
}

func explainImage(in inspection, descs []ocispec.Descriptor) imageExplanation {
	e := imageExplanation{inspection: in}
	for i, l := range in.Layers {
		e.Layers = append(e.Layers, explainedLayer{l, in.judge(&l, descs[i])})
		if l.Access == "lazy" {
			e.Lazy++
		} else {
			e.ReadWhole += l.Compressed
		}
	}
	return e
}

const (
	// longSpan is from which average length on spans are too long to be called
	// lazy, bytes of the address space.
	longSpan = 8 << 20
	// smallLayer is up to which size a layer of one span is as well read whole,
	// bytes of the blob.
	smallLayer = 1 << 20
)

// judge tells why layer l of the image, which d describes, is read as it is.
func (in *inspection) judge(l *layerInspection, d ocispec.Descriptor) judgement {
	switch {
	case l.Access == "lazy" && l.Index == "":
		return judgement{Why: l.Format + ", by the table of contents in it"}
	case l.Access == "lazy":
		return judgement{Why: l.Format + ", by an index: " + l.Origin}
	case l.Access == "resident":
		return judgement{Why: "the first read fetches all: " + l.Resident, Advice: in.convert()}
	case in.ArtifactType != "":
		return judgement{Why: "it is a file of an artifact, of which there are no indexes"}
	case in.Transport != "":
		return judgement{Why: "it lies on this machine and was read once, for its names"}
	case in.Schema1:
		return judgement{
			Why:    "manifests of Docker schema 1 know neither tables of contents nor indexes",
			Advice: fmt.Sprintf("peel save %s -o oci:DIR, and peel convert --format estargz oci:DIR IMAGE", in.Reference),
		}
	case foreign(d):
		return judgement{Why: "no registry may distribute it, nor is there an index of it: " + l.Reason}
	case fs.RefusesRanges(l.Reason):
		return judgement{Why: l.Reason, Advice: "name a mirror that has byte ranges in hosts.toml (docs/registries.md)"}
	case fs.Unusable(l.Reason):
		return judgement{Why: l.Reason, Advice: "make the index anew: peel index push " + in.Reference}
	}
	return in.judgePlain(l, d)
}

// judgePlain is judge for a layer that might have had a table of contents or an
// index.
func (in *inspection) judgePlain(l *layerInspection, d ocispec.Descriptor) judgement {
	if _, ok := layer.TOCDigest(d); ok {
		return judgement{Why: "its table of contents is of no use: " + l.Reason, Advice: in.convert()}
	}
	v := judgement{Why: "plain " + l.Format + ", without an index: " + l.Reason}
	switch {
	case l.Spans <= 1 && l.Compressed <= smallLayer:
		v.Why = "plain " + l.Format + ", but so small that an index would cost as much"
	case l.Resident != "":
		v.Why += "; nor would one help: " + l.Resident
		v.Advice = in.convert()
	case l.BytesTotal/int64(max(l.Spans, 1)) >= longSpan:
		v.Why += fmt.Sprintf("; nor would one help much: the stream can be entered at %s only", places(l.Spans))
		v.Advice = in.convert()
	default:
		v.Advice = fmt.Sprintf("peel index push %s, or with --to a repository of yours that peel mount --index names; or %s", in.Reference, in.convert())
	}
	return v
}

func places(n int) string {
	if n == 1 {
		return "its beginning"
	}
	return counted(n, "place")
}

// counted is a number of things, for people.
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return strconv.Itoa(n) + " " + thing
}

// convert is the command that gives all layers a table of contents.
func (in *inspection) convert() string {
	return fmt.Sprintf("peel convert --format estargz %s IMAGE", in.Reference)
}

// print writes the explanation for people.
func (e *imageExplanation) print(w io.Writer) error {
	fmt.Fprintf(w, "Image:     %s (%s, %s)\n", e.Reference, shortDigest(e.Digest), e.Platform)
	fmt.Fprintf(w, "Size:      %s compressed, %s uncompressed, of which %s are in the cache (%s)\n", humanSize(e.Compressed),
		humanSize(e.BytesTotal), humanSize(e.BytesPresent), percent(e.BytesPresent, e.BytesTotal))
	if e.Lazy == len(e.Layers) {
		fmt.Fprintf(w, "Lazy:      all %d layers; only what is read is fetched\n", e.Lazy)
	} else {
		fmt.Fprintf(w, "Lazy:      %d of %d layers; %s compressed have to be read whole, once\n", e.Lazy, len(e.Layers), humanSize(e.ReadWhole))
	}
	e.printAhead(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LAYER\tACCESS\tCOMPRESSED\tPRESENT\tWHY")
	for _, l := range e.Layers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", shortDigest(l.Digest), l.Access, humanSize(l.Compressed),
			percent(l.BytesPresent, l.BytesTotal), oneLine(l.Why))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	e.printAdvice(w)
	return nil
}

// printAhead tells what is known of what will be read.
func (e *imageExplanation) printAhead(w io.Writer) {
	switch {
	case e.Transport != "": // it is read where it lies
	case e.Ahead.Spans > 0:
		fmt.Fprintf(w, "Ahead:     %s compressed are fetched before they are read, by %s\n", humanSize(e.Ahead.Compressed), e.Ahead.From)
	default:
		fmt.Fprintf(w, "Ahead:     nothing is known of what will be read; a mount learns it, or: peel profile pull %s\n", e.Reference)
	}
	for _, p := range e.Profiles {
		fmt.Fprintf(w, "Profile:   %s, of %s, %d of this machine, the last %s ago: %s\n", strconv.Quote(p.Entrypoint),
			counted(p.Runs, "run"), p.OwnRuns, ago(p.Updated), counted(p.Touches, "place"))
	}
	fmt.Fprintln(w)
}

// printAdvice tells each piece of advice once, with the layers it is for.
func (e *imageExplanation) printAdvice(w io.Writer) {
	var order []string
	layers := map[string][]string{}
	for _, l := range e.Layers {
		if l.Advice == "" {
			continue
		}
		if !slices.Contains(order, l.Advice) {
			order = append(order, l.Advice)
		}
		layers[l.Advice] = append(layers[l.Advice], shortDigest(l.Digest))
	}
	for _, advice := range order {
		fmt.Fprintf(w, "\nTo have %s lazy: %s\n", strings.Join(layers[advice], ", "), oneLine(advice))
	}
}
