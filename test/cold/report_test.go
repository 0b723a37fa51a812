//go:build linux

package cold

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The targets, all of them on the slow line.
const (
	maxTotal       = 1.4 // of L, with nothing known
	maxTotalKnown  = 1.0 // of L, with a profile
	maxBytes       = 1.3 // of the compressed size of what is touched, with nothing known
	maxBytesKnown  = 1.1
	maxPull        = 0.3 // of the faster full pull, where
	touchedOfImage = 0.2 // less than this share of the image is touched
	maxWhole       = 1.0 // of pull, unpack and read
	targetLine     = "wan"
)

const missed = " ✗"

// document is the generated part of the page.
func (r *results) document() string {
	var b strings.Builder
	for _, l := range lines() {
		if r.any(l.name) {
			fmt.Fprintf(&b, "#### %s: %v, %d Mbit/s\n\n", strings.ToUpper(l.name), l.Delay, l.BytesPerSecond*8/1e6)
			r.table(&b, l)
			r.wholes(&b, l)
		}
	}
	return b.String()
}

func (r *results) any(line string) bool {
	for _, o := range r.Runs {
		if o.Line == line {
			return true
		}
	}
	return false
}

func (r *results) table(b *strings.Builder, l line) {
	b.WriteString("| workload | image | mounted | first output | total | ÷ L | ÷ pull | MB | of it tables | ÷ touched | requests | server MB |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, w := range workloadOrder(r) {
		if at := r.find(w, "", local, false); at != nil {
			fmt.Fprintf(b, "| **%s** | local disk, cold | | %.2f s | %.2f s | | | | | | | |\n", w, at.First, at.Total)
		}
		for _, f := range forms() {
			for _, profile := range []bool{false, true} {
				if o := r.find(w, l.name, f.name, profile); o != nil {
					r.row(b, l, o)
				}
			}
		}
		for _, way := range []string{ctr, podman} {
			if o := r.find(w, l.name, way, false); o != nil {
				fmt.Fprintf(b, "| %s | %s | %.2f s | %.2f s | %.2f s | | | %s | | | %d | |\n", w, wayName(o), o.Mounted, o.First, o.Total, mega(o.Bytes), o.Requests)
			}
		}
	}
	b.WriteString("\n")
}

// row is a run over a peel mount.
func (r *results) row(b *strings.Builder, l line, o *result) {
	v := r.verdict(l, o)
	fmt.Fprintf(b, "| %s | %s | %.2f s | %.2f s | %.2f s | %s | %s | %s | %s | %s | %d | %.0f |\n", o.Workload, wayName(o),
		o.Mounted, o.First, o.Total, v.limit, v.pull, mega(o.Bytes), mega(r.tables(o.Workload, o.Way)), v.touched, o.Requests, float64(o.Memory)/1e6)
}

// A verdict is what a run is of each thing it is to be compared with, in
// words; "" where there is nothing to compare with.
type verdict struct{ limit, pull, touched string }

func (r *results) verdict(l line, o *result) (v verdict) {
	counts := l.name == targetLine
	limit := r.limit(l, o.Workload, o.Way)
	lazy := limit > 0
	total, bytes := maxTotal, maxBytes
	if o.Profile {
		total, bytes = maxTotalKnown, maxBytesKnown
	}
	touched := r.touched(o.Workload, o.Way)
	if lazy {
		v.limit = ratio(o.Total/limit, total, counts)
	}
	if pulled := r.pulled(o.Workload, l.name); pulled > 0 {
		small := float64(touched) < touchedOfImage*float64(r.Sizes[o.Workload])
		v.pull = ratio(o.Total/pulled, maxPull, counts && lazy && small)
	}
	if lazy {
		v.touched = ratio(float64(o.Bytes-r.tables(o.Workload, o.Way))/float64(touched), bytes, counts)
	}
	return v
}

// tables is what a mount fetches before anything is read: documents, tables of
// contents and indexes. The run without a profile tells.
func (r *results) tables(workload, way string) int64 {
	for _, l := range lines() {
		if o := r.find(workload, l.name, way, false); o != nil {
			return o.Tables
		}
	}
	return 0
}

// wholes compares reading everything.
func (r *results) wholes(b *strings.Builder, l line) {
	var rows strings.Builder
	for _, w := range workloadOrder(r) {
		o, pulled := r.find(w, l.name, whole, false), r.find(w, l.name, ctrWhole, false)
		if o == nil || pulled == nil {
			continue
		}
		fmt.Fprintf(&rows, "| %s | %s MB | %.2f s | %.2f s | %s |\n", w, mega(o.Bytes), o.Total, pulled.Total, ratio(o.Total/pulled.Total, maxWhole, l.name == targetLine))
	}
	if rows.Len() > 0 {
		b.WriteString("| everything read, once, cold | | peel, eStargz | ctr pull, unpack, read | ratio |\n|---|---|---|---|---|\n" + rows.String() + "\n")
	}
}

// ratio is v, with a mark if it counts and is above most.
func ratio(v, most float64, counts bool) string {
	text := fmt.Sprintf("%.2f", v)
	if counts && v > most {
		return text + missed
	}
	return text
}

func mega(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }

func wayName(o *result) string {
	name := map[string]string{
		"estargz": "eStargz", "zstdchunked": "zstd:chunked", "indexed": "gzip and index", "plain": "plain gzip",
		ctr: "pulled by ctr", podman: "pulled by podman", local: "local disk",
	}[o.Way]
	if name == "" {
		name = o.Way
	}
	if o.Profile {
		name += ", profile"
	}
	return name
}

// workloadOrder are the workloads that there are runs of.
func workloadOrder(r *results) []string {
	var out []string
	seen := map[string]bool{}
	for _, o := range r.Runs {
		if !seen[o.Workload] {
			seen[o.Workload] = true
			out = append(out, o.Workload)
		}
	}
	return out
}

// replacePart puts text between the marks of a document.
func replacePart(name, text string) error {
	const begin, end = "<!-- generated by make bench-cold -->\n", "<!-- end of bench-cold -->"
	doc, err := os.ReadFile(filepath.Clean(name))
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(doc), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no part that make bench-cold generates", name)
	}
	return os.WriteFile(name, []byte(before+begin+text+end+after), 0o644)
}

// raw is the results as JSON, a line for each run.
func (r *results) raw() ([]byte, error) {
	sizes, err := json.Marshal(r.Sizes)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "{\"image_bytes\": %s,\n\"runs\": [\n", sizes)
	for i, o := range r.Runs {
		one, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteString(",\n")
		}
		b.Write(one)
	}
	b.WriteString("\n]}\n")
	return []byte(b.String()), nil
}
