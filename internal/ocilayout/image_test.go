package ocilayout

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPutImage(t *testing.T) {
	t.Parallel()
	type put struct {
		Name
		content, called string // "" if the tag is taken
	}
	alpine := Name{"latest", "docker.io/library/alpine:latest", "alpine:latest"}
	busybox := Name{"latest", "docker.io/library/busybox:latest", "busybox:latest"}
	whole := Name{"alpine:latest", "docker.io/library/alpine:latest", "alpine:latest"}
	unknown := Name{Tag: "latest"}
	for _, tc := range []struct {
		name string
		puts []put
		want map[string]string // contents by ref.name
	}{
		{"alone", []put{{alpine, "1", "latest"}}, map[string]string{"latest": "1"}},
		{"newer", []put{{alpine, "1", "latest"}, {alpine, "2", "latest"}}, map[string]string{"latest": "2"}},
		{
			"of another repository",
			[]put{{alpine, "1", "latest"}, {busybox, "2", "busybox:latest"}},
			map[string]string{"latest": "1", "busybox:latest": "2"},
		},
		{
			"newer of both",
			[]put{{alpine, "1", "latest"}, {busybox, "2", "busybox:latest"}, {alpine, "3", "latest"}, {busybox, "4", "busybox:latest"}},
			map[string]string{"latest": "3", "busybox:latest": "4"},
		},
		{
			"of another repository, the same bytes",
			[]put{{alpine, "1", "latest"}, {busybox, "1", "busybox:latest"}},
			map[string]string{"latest": "1", "busybox:latest": "1"},
		},
		{"whole first", []put{{whole, "1", "alpine:latest"}, {alpine, "2", "latest"}}, map[string]string{"latest": "2"}},
		{
			"beside what nobody knows",
			[]put{{unknown, "1", "latest"}, {alpine, "2", "alpine:latest"}},
			map[string]string{"latest": "1", "alpine:latest": "2"},
		},
		{
			"what nobody knew is known",
			[]put{{unknown, "1", "latest"}, {alpine, "1", "latest"}, {busybox, "2", "busybox:latest"}},
			map[string]string{"latest": "1", "busybox:latest": "2"},
		},
		{"no name left", []put{{alpine, "1", "latest"}, {unknown, "2", ""}, {unknown, "1", "latest"}}, map[string]string{"latest": "1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir)
			for _, p := range tc.puts {
				called, err := l.PutImage(t.Context(), []byte(p.content), ocispec.MediaTypeImageManifest, p.Name)
				if called != p.called || errors.Is(err, ErrTaken) != (p.called == "") || err != nil && p.called != "" {
					t.Fatalf("%s is called %q, want %q: %v", p.content, called, p.called, err)
				}
			}
			want, got := map[string][]digest.Digest{}, map[string][]digest.Digest{}
			for name, content := range tc.want {
				want[name] = []digest.Digest{digest.FromString(content)}
			}
			for _, d := range index(t, dir).Manifests {
				name := d.Annotations[ocispec.AnnotationRefName]
				got[name] = append(got[name], d.Digest)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
