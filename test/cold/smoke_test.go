//go:build linux

package cold

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/internal/testkit"
)

// tiny is a workload that takes one small package.
func tiny(t testing.TB) string {
	t.Helper()
	entries := testkit.Packages(t, "busybox-static")
	l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []testkit.Form{testkit.Gzip, testkit.Stargz} {
		d, err := l.Image(testkit.Encode(t, f, entries...))
		if err == nil {
			err = l.Tag(string(f), d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return l.Dir
}

// TestSmoke measures a tiny container over the fast line and over the local
// disk, so that make test notices when make bench-cold would not run.
func TestSmoke(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting and starting containers take root")
	}
	const script = "read line; echo first $line; /bin/busybox du -s /usr | /bin/busybox cat"
	w := workload{"tiny", tiny, testkit.Container{Args: []string{"/bin/busybox", "sh", "-c", script}, Stdin: "of all\n"}, "first of all"}
	out := &results{Sizes: map[string]int64{}}
	b := newBench(t, w, selection{strings.Fields("lan estargz whole")}, out)
	b.forget = func(testing.TB) {} // other tests are under way
	b.all(t)

	var got []string
	for _, o := range out.Runs {
		got = append(got, strings.TrimSpace(o.Line+" "+wayName(&o)))
		if o.Total <= 0 || (o.Way == "estargz" && (o.First > o.Total || o.Mounted > o.First || o.Memory == 0 || o.Tables == 0)) {
			t.Errorf("measured %+v", o)
		}
	}
	if o := out.find("tiny", "lan", "estargz", false); o == nil || o.Bytes <= o.Tables || o.Touched == 0 || o.Touched > o.Bytes {
		t.Errorf("measured %+v", o)
	}
	if d := cmp.Diff([]string{"local disk", "lan eStargz", "lan eStargz, profile", "lan whole"}, got); d != "" {
		t.Errorf("runs (-want +got):\n%s", d)
	}
}

// TestReport: what is written is well-formed and has every run.
func TestReport(t *testing.T) {
	t.Parallel()
	out := &results{Sizes: map[string]int64{"a<b": 100e6}, Runs: []result{
		{Workload: "a<b", Way: local, First: 0.5, Total: 0.84},
		{Workload: "a<b", Line: "wan", Way: "estargz", Mounted: 0.2, First: 1, Total: 3, Bytes: 14e6, Tables: 1e6, Requests: 9, Memory: 30e6, Touched: 12.5e6},
		{Workload: "a<b", Line: "wan", Way: "estargz", Profile: true, Mounted: 0.2, First: 1, Total: 1.9, Bytes: 15e6, Touched: 12.5e6},
		{Workload: "a<b", Line: "wan", Way: "plain", Total: 9, Bytes: 100e6},
		{Workload: "a<b", Line: "wan", Way: ctr, Mounted: 9, First: 9.5, Total: 10, Bytes: 100e6},
		{Workload: "a<b", Line: "wan", Way: whole, Total: 11},
		{Workload: "a<b", Line: "wan", Way: ctrWhole, Total: 10},
	}}
	page := out.document()
	for _, want := range []string{
		"| a<b | eStargz | 0.20 s | 1.00 s | 3.00 s | 1.50 ✗ | 0.30 | 14.0 | 1.0 | 1.04 | 9 | 30 |\n",
		"| a<b | eStargz, profile | 0.20 s | 1.00 s | 1.90 s | 0.95 | 0.19 | 15.0 | 1.0 | 1.12 ✗ | 0 | 0 |\n",
		"| a<b | plain gzip | 0.00 s | 0.00 s | 9.00 s |  | 0.90 | 100.0 | 0.0 |  | 0 | 0 |\n",
		"| a<b | 0.0 MB | 11.00 s | 10.00 s | 1.10 ✗ |\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	raw, err := out.raw()
	var back results
	if err := errors.Join(err, json.Unmarshal(raw, &back)); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	if d := cmp.Diff(*out, back); d != "" {
		t.Errorf("figures read back (-want +got):\n%s", d)
	}
	d := xml.NewDecoder(strings.NewReader(out.chart()))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 1+3+4 { // the ground, the key, the runs
		t.Errorf("%d rectangles", bars)
	}
}

func TestSelection(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, words   string
		python, plain bool
		unknown       int
	}{
		{"nothing is everything", "", true, true, 0},
		{"a workload leaves the others out", "ruby", false, true, 0},
		{"a form leaves the other ways out", "python wan estargz", true, false, 0},
		{"a peer does, too", "podman", true, false, 0},
		{"a word that means nothing", "pythn plain", true, true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := selection{strings.Fields(tc.words)}
			if got := s.has("python", workloadNames()); got != tc.python {
				t.Errorf("python: %v", got)
			}
			if got := s.has("plain", ways()); got != tc.plain {
				t.Errorf("plain: %v", got)
			}
			if got := s.unknown(); len(got) != tc.unknown {
				t.Errorf("unknown words %q", got)
			}
		})
	}
}
