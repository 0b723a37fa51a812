package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

func TestParseSaveDestination(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs("")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ in, want, name string }{
		{"x.tar", "docker-archive:" + here + "/x.tar", ""},
		{"./x", "docker-archive:" + here + "/x", ""},
		{"/x/y.tar", "docker-archive:/x/y.tar", ""},
		{"x.tar:alpine:3", "", ""},
		{"./x.tar:alpine:3", "docker-archive:" + here + "/x.tar", "alpine:3"},
		{"-", "standard output", ""},
		{"oci:/x", "oci:/x", ""},
		{"oci:/x:3", "oci:/x", "3"},
		{"oci-archive:/x:3", "oci-archive:/x", "3"},
		{"docker-archive:/x:a/b", "docker-archive:/x", "a/b"},
		{"dir:/x", "dir:/x", ""},
		{"", "", ""},
		{"x/", "", ""},
		{"oci:", "", ""},
		{"docker-dir:/x", "", ""},
		{"docker-daemon:x", "", ""},
		{"oci:/x:@1", "", ""},
		{"oci:/x@" + digest.FromString("").String(), "", ""},
		{"docker-archive:/x:Alpine", "", ""},
		{"docker://alpine", "", ""},
	} {
		t.Run(tc.in, func(t *testing.T) {
			t.Parallel()
			d, err := parseSaveDestination(tc.in)
			if (err != nil) != (tc.want == "") || err != nil && exitCode(err) != exitUsage {
				t.Fatalf("%v, %v", d, err)
			}
			if err == nil && (d.String() != tc.want || d.name != tc.name) {
				t.Errorf("%s with %q", d, d.name)
			}
		})
	}
}

func TestSaveNames(t *testing.T) {
	t.Parallel()
	sum := digest.FromString("").String()
	known := []string{"b:1", "@7", "c:2"}
	for _, tc := range []struct{ name, ref, to, layout, docker, several string }{
		{"registry", "ghcr.io/a/b:c", "oci:x", "c", "ghcr.io/a/b:c", "ghcr.io/a/b:c"},
		{"familiar", "alpine", "oci:x", "latest", "alpine:latest", "alpine:latest"},
		{"tag and digest", "alpine:3@" + sum, "oci:x", "3", "alpine:3", "alpine:3"},
		{"digest alone", "alpine@" + sum, "oci:x", "", "", ""},
		{"destination's tag", "alpine:3", "oci:x:t", "t", "t:latest", "t"},
		{"destination's name", "alpine:3", "docker-archive:x:a/b:c", "a/b:c", "a/b:c", "a/b:c"},
		{"layout without tag", "oci:y", "oci:x", "b:1 c:2", "b:1 c:2", "b:1 c:2"},
		{"tag of a layout", "oci:y:3", "oci:x", "3", "", "3"},
		{"name in a layout", "oci:y:a/b:3", "oci:x", "a/b:3", "a/b:3", "a/b:3"},
		{"digest in a layout", "oci:y@" + sum, "oci:x", "b:1 c:2", "b:1 c:2", "b:1 c:2"},
		{"archive", "docker-archive:y:alpine", "oci:x", "latest", "alpine:latest", "alpine:latest"},
		{"image of an archive by number", "docker-archive:y:@1", "oci:x", "1 2", "b:1 c:2", "b:1 c:2"},
		{"archive of one image", "docker-archive:y", "oci:x", "1 2", "b:1 c:2", "b:1 c:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref, err := manifest.ParseReference(tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			to, err := parseSaveDestination(tc.to)
			if err != nil {
				t.Fatal(err)
			}
			j := saveJob{refs: []manifest.Reference{ref}, to: to}
			layout, docker := joined(j.names(ref, known))
			if layout != tc.layout || docker != tc.docker {
				t.Errorf("alone: %q and %q", layout, docker)
			}
			j.refs = append(j.refs, ref)
			if layout, _ := joined(j.names(ref, known)); layout != tc.several {
				t.Errorf("one of several: %q", layout)
			}
		})
	}
}

// joined are the names in layouts and those in archives of docker save.
func joined(names []savedName) (layout, docker string) {
	var refs, tags []string
	for _, n := range names {
		refs = append(refs, n.ref)
		if n.tag != nil {
			tags = append(tags, reference.FamiliarString(n.tag))
		}
	}
	return strings.Join(refs, " "), strings.Join(tags, " ")
}
