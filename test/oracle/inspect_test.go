//go:build linux

package oracle

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/internal/testkit"
)

// TestInspect: peel knows each form for what it is, and says why a layer had
// to be read whole. A comparison of trees alone would not notice.
func TestInspect(t *testing.T) {
	t.Parallel()
	const lazy, whole = " lazy claimed", " streamed proved"
	s := testkit.Debian(t)[0]
	reg := testkit.NewRegistry(t)
	for _, tc := range []struct {
		tag  string
		want []string
	}{
		{string(testkit.Gzip), []string{"gzip" + whole, "gzip" + whole, "gzip" + whole}},
		{string(testkit.GzipMembers), []string{"gzip" + whole, "gzip" + whole, "gzip" + whole}},
		{testkit.Docker, []string{"gzip" + whole, "gzip" + whole, "gzip" + whole}},
		{string(testkit.PlainTar), []string{"tar" + whole, "tar" + whole, "tar" + whole}},
		{string(testkit.Zstd), []string{"zstd" + whole, "zstd" + whole, "zstd" + whole}},
		{string(testkit.Stargz), []string{"eStargz" + lazy, "eStargz" + lazy, "eStargz" + lazy}},
		{string(testkit.StargzMin), []string{"eStargz" + lazy, "eStargz" + lazy, "eStargz" + lazy}},
		{string(testkit.StargzLegacy), []string{"eStargz" + lazy, "eStargz" + lazy, "eStargz" + lazy}},
		{string(testkit.ZstdChunkedEarly), []string{"zstd:chunked" + lazy, "zstd:chunked" + lazy, "zstd:chunked" + lazy}},
		{string(testkit.ZstdChunked), []string{"zstd:chunked" + lazy, "zstd:chunked" + lazy, "zstd:chunked" + lazy}},
		{testkit.Skopeo, []string{"zstd:chunked" + lazy, "zstd:chunked" + lazy, "zstd:chunked" + lazy}},
		{testkit.Mixed, []string{"eStargz" + lazy, "zstd" + whole, "zstd:chunked" + lazy}},
	} {
		t.Run(tc.tag, func(t *testing.T) {
			t.Parallel()
			reg.Push(t, s.Layout, tc.tag, "inspect")
			var image struct {
				Layers []struct{ Format, Access, Trust, Reason string }
			}
			out := testkit.NewPeel(t).Must("inspect", "--json", reg.Ref("inspect", tc.tag)).Stdout
			if err := json.Unmarshal([]byte(out), &image); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var got []string
			for _, l := range image.Layers {
				got = append(got, strings.Join([]string{l.Format, l.Access, l.Trust}, " "))
				if (l.Access == "lazy") != (l.Reason == "") {
					t.Errorf("%s layer with reason %q", l.Access, l.Reason)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("layers (-want +got):\n%s", d)
			}
		})
	}
}
