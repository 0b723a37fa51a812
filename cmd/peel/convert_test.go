package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

func TestReplaceDiffIDs(t *testing.T) {
	t.Parallel()
	a, b := digest.FromString("a"), digest.FromString("b")
	tests := []struct {
		name, raw, want string // < and > stand for a and b
		err             error
	}{
		{"bare", `{"rootfs":{"diff_ids":["<"]}}`, `{"rootfs":{"diff_ids":[">"]}}`, nil},
		{
			"all else stays",
			"{ \"x\" : {\"rootfs\":{\"diff_ids\":[]}},\n\t\"rootfs\": { \"type\":\"layers\", \"diff_ids\" : [ \"<\" ] , \"y\":1.0 }, \"z\": \"\\u003c\" }\n",
			"{ \"x\" : {\"rootfs\":{\"diff_ids\":[]}},\n\t\"rootfs\": { \"type\":\"layers\", \"diff_ids\" : [\">\"] , \"y\":1.0 }, \"z\": \"\\u003c\" }\n",
			nil,
		},
		{"the last of several counts", `{"rootfs":{"diff_ids":[]},"rootfs":{"diff_ids":["<"]}}`, `{"rootfs":{"diff_ids":[]},"rootfs":{"diff_ids":[">"]}}`, nil},
		{"names in another case", `{"rootfs":{"diff_ids":[]},"RootFS":{"Diff_IDs":["<"]}}`, "", manifest.ErrMalformed},
		{"no rootfs", `{}`, "", manifest.ErrMalformed},
		{"no diff_ids", `{"rootfs":{}}`, "", manifest.ErrMalformed},
		{"no object", `[]`, "", manifest.ErrMalformed},
		{"rootfs is no object", `{"rootfs":null}`, "", manifest.ErrMalformed},
	}
	ids := strings.NewReplacer(`"<"`, `"`+a.String()+`"`, `">"`, `"`+b.String()+`"`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := replaceDiffIDs([]byte(ids.Replace(tt.raw)), []digest.Digest{a}, []digest.Digest{b})
			if !errors.Is(err, tt.err) {
				t.Fatal(err)
			}
			if d := cmp.Diff(ids.Replace(tt.want), string(got)); d != "" {
				t.Error(d)
			}
		})
	}
	raw := []byte(`{"anything": 1}`)
	if got, err := replaceDiffIDs(raw, []digest.Digest{a}, []digest.Digest{a}); err != nil || string(got) != string(raw) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestParseDestination(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, want string
		dir, tag string
	}{
		{"alpine", "docker.io/library/alpine:latest", "", "latest"},
		{"localhost:5000/a/b:c", "localhost:5000/a/b:c", "", "c"},
		{"oci:dir", "oci:dir:latest", "dir", "latest"},
		{"oci:/a/dir:tag", "oci:/a/dir:tag", "/a/dir", "tag"},
		{"oci:a:b/dir", "oci:a:b/dir:latest", "a:b/dir", "latest"},
		{"oci:", "", "", ""},
		{"oci::tag", "", "", ""},
		{"oci:dir:", "", "", ""},
		{"oci:dir:a b", "", "", ""},
		{"alpine@" + digest.FromString("").String(), "", "", ""},
		{"alpine:x@" + digest.FromString("").String(), "", "", ""},
		{"docker://alpine", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			d, err := parseDestination(tt.in)
			if (err != nil) != (tt.want == "") || err != nil && exitCode(err) != exitUsage {
				t.Fatalf("%v, %v", d, err)
			}
			if err == nil && (d.String() != tt.want || d.dir != tt.dir || d.tag != tt.tag) {
				t.Errorf("%s: %+v", d, d)
			}
		})
	}
}

func TestReadProfile(t *testing.T) {
	t.Parallel()
	write := func(text string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "profile")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	got, err := readProfile(write("# first\r\n\n /usr/bin/a b \n./c\n#d\ne#f"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/usr/bin/a b", "./c", "e#f"}, got); d != "" {
		t.Error(d)
	}
	for name, file := range map[string]string{
		"none":        filepath.Join(t.TempDir(), "none"),
		"a long line": write(strings.Repeat("x", maxProfileLine+1)),
		"many lines":  write(strings.Repeat("x\n", maxProfile+1)),
	} {
		if _, err := readProfile(file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
