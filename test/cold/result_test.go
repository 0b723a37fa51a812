//go:build linux

package cold

import "slices"

// A result is one run of a workload.
type result struct {
	Workload string `json:"workload"`
	Line     string `json:"line"` // "" for local
	Way      string `json:"way"`
	Profile  bool   `json:"profile,omitempty"` // one was there
	// Seconds from the beginning, which is that of the mount or the pull.
	Mounted float64 `json:"mounted_s"`
	First   float64 `json:"first_output_s,omitempty"`
	Total   float64 `json:"total_s"`

	Bytes    int64 `json:"bytes"`            // of answers' bodies
	Tables   int64 `json:"tables,omitempty"` // of them, those that the mount took
	Requests int64 `json:"requests"`
	Memory   int64 `json:"memory,omitempty"`  // the largest resident set of the server, bytes
	Touched  int64 `json:"touched,omitempty"` // compressed bytes of the spans that were read from
	Unused   int64 `json:"unused,omitempty"`  // likewise, of those fetched on a guess or by a profile and not read from
}

// results are all of a run.
type results struct {
	Runs  []result         `json:"runs"`
	Sizes map[string]int64 `json:"image_bytes"` // compressed, plain gzip, by workload
}

func (r *results) add(one result) { r.Runs = append(r.Runs, one) }

// find returns a run, or nil if it was not made.
func (r *results) find(workload, line, way string, profile bool) *result {
	i := slices.IndexFunc(r.Runs, func(o result) bool {
		return o.Workload == workload && o.Line == line && o.Way == way && o.Profile == profile
	})
	if i < 0 {
		return nil
	}
	return &r.Runs[i]
}

// touched is the compressed size of the spans that a workload touches in a
// form: as told by the run that fetched least on a guess.
func (r *results) touched(workload, way string) int64 {
	var known []int64
	for _, o := range r.Runs {
		if o.Workload == workload && o.Way == way && o.Touched > 0 {
			known = append(known, o.Touched)
		}
	}
	if len(known) == 0 {
		return 0
	}
	return slices.Min(known)
}

// limit is L: four round trips, the bytes that are needed at the line's full
// rate, and what the command takes where all is on the local disk. 0 if
// something of that was not measured, or the way is not lazy.
func (r *results) limit(l line, workload, way string) float64 {
	at := r.find(workload, "", local, false)
	n := r.touched(workload, way)
	lazy := slices.ContainsFunc(forms(), func(f form) bool { return f.name == way && f.lazy })
	if at == nil || n == 0 || !lazy {
		return 0
	}
	return 4*l.Delay.Seconds() + float64(n)/float64(l.BytesPerSecond) + at.Total
}

// pulled is the faster of the full pulls, or 0.
func (r *results) pulled(workload, line string) float64 {
	var all []float64
	for _, way := range []string{ctr, podman} {
		if p := r.find(workload, line, way, false); p != nil {
			all = append(all, p.Total)
		}
	}
	if len(all) == 0 {
		return 0
	}
	return slices.Min(all)
}
