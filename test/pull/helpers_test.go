//go:build linux

package pull

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
)

const fileSize = 200_000 // bytes of each file

// files are those of one layer.
func files(layer string, n int) []testkit.Entry {
	var out []testkit.Entry
	for i := range n {
		seed := uint64(i)
		for _, c := range layer {
			seed = seed*131 + uint64(c)
		}
		out = append(out, testkit.File(fmt.Sprintf("%s/file-%d", layer, i), testkit.Noise(seed, fileSize)))
	}
	return out
}

// image is one whose layers may be in others.
type image struct {
	repo    string
	layers  []testkit.Layer
	entries []testkit.Entry
}

// part is a layer and what is in it.
type part struct {
	layer   testkit.Layer
	entries []testkit.Entry
}

func newPart(t *testing.T, name string, f testkit.Form, n int) part {
	t.Helper()
	entries := files(name, n)
	return part{testkit.Encode(t, f, entries...), entries}
}

func newImage(repo string, parts ...part) image {
	m := image{repo: repo}
	for _, p := range parts {
		m.layers = append(m.layers, p.layer)
		m.entries = append(m.entries, p.entries...)
	}
	return m
}

func (m image) size() (n int64) {
	for _, l := range m.layers {
		n += l.Desc.Size
	}
	return n
}

// same compares all files below root with the image's.
func (m image) same(t *testing.T, root string) {
	t.Helper()
	for _, e := range m.entries {
		if got, err := os.ReadFile(filepath.Join(root, e.Name)); err != nil || !bytes.Equal(got, e.Data) {
			t.Errorf("%s: %d bytes, %v", e.Name, len(got), err)
		}
	}
}

// served are the bytes of each blob that went over the wire.
func served(log []testkit.Request) map[digest.Digest]int64 {
	out := map[digest.Digest]int64{}
	for _, r := range log {
		if r.Blob() {
			out[digest.Digest(r.Path[strings.LastIndexByte(r.Path, '/')+1:])] += r.Bytes
		}
	}
	return out
}

// event is a line of peel pull --json.
type event struct {
	Image   string        `json:"image"`
	Layer   digest.Digest `json:"layer"`
	State   string        `json:"state"`
	Done    int64         `json:"done"`
	Total   int64         `json:"total"`
	Digest  digest.Digest `json:"digest"`
	New     bool          `json:"new"`
	Fetched int64         `json:"fetched"`
}

// pulled runs peel pull --json and returns its events: the last one of each
// image, and the states that each layer went through.
func pulled(t *testing.T, p *testkit.Peel, args ...string) (last map[string]event, states map[digest.Digest][]string) {
	t.Helper()
	r := p.Must(append([]string{"pull", "--json"}, args...)...)
	last, states = map[string]event{}, map[digest.Digest][]string{}
	for line := range strings.Lines(r.Stdout) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if e.Layer == "" {
			last[e.Image] = e
		} else if s := states[e.Layer]; len(s) == 0 || s[len(s)-1] != e.State {
			states[e.Layer] = append(s, e.State)
		}
	}
	return last, states
}
