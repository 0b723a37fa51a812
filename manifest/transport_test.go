package manifest

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestParseReferenceLocal(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs("")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, in, want, location, within string }{
		{"layout", "oci:/x/dir", "oci:/x/dir", "/x/dir", ""},
		{"layout and tag", "oci:/x/dir:3.20", "oci:/x/dir:3.20", "/x/dir", "3.20"},
		{"layout and a name for tag", "oci:/x/dir:docker.io/library/alpine:3", "oci:/x/dir:docker.io/library/alpine:3", "/x/dir", "docker.io/library/alpine:3"},
		{"layout and digest", "oci:/x/dir@" + someDigest, "oci:/x/dir@" + someDigest, "/x/dir", "@" + someDigest},
		{"layout and digest behind a colon", "oci:/x/dir:@" + someDigest, "oci:/x/dir@" + someDigest, "/x/dir", "@" + someDigest},
		{"layout and number", "oci:/x/dir:@1", "oci:/x/dir:@1", "/x/dir", "@1"},
		{"relative layout", "oci:dir:tag", "oci:" + here + "/dir:tag", here + "/dir", "tag"},
		{"the folder one is in", "oci:.", "oci:" + here, here, ""},
		{"path is cleaned", "oci:/x//y/../dir/:t", "oci:/x/dir:t", "/x/dir", "t"},
		{"many slashes", "oci:///x", "oci:/x", "/x", ""},
		{"folder with an at sign", "oci:/x@y:t", "oci:/x@y:t", "/x@y", "t"},
		{"path with a space", "oci-archive:/My Images/a.tar:t", "oci-archive:/My Images/a.tar:t", "/My Images/a.tar", "t"},
		{"archive", "docker-archive:/x.tar", "docker-archive:/x.tar", "/x.tar", ""},
		{"archive and name", "docker-archive:/x.tar:alpine", "docker-archive:/x.tar:alpine", "/x.tar", "alpine"},
		{"archive, name and tag", "docker-archive:/x.tar:host:5000/a:3", "docker-archive:/x.tar:host:5000/a:3", "/x.tar", "host:5000/a:3"},
		{"archive and number as skopeo has it", "docker-archive:/x.tar:@2", "docker-archive:/x.tar:@2", "/x.tar", "@2"},
		{"archive and number", "docker-archive:/x.tar@2", "docker-archive:/x.tar:@2", "/x.tar", "@2"},
		{"unpacked archive", "docker-dir:/x:alpine:3", "docker-dir:/x:alpine:3", "/x", "alpine:3"},
		{"dir", "dir:/x", "dir:/x", "/x", ""},
		{"dir with a colon", "dir:/x:y@2", "dir:/x:y@2", "/x:y@2", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, err := ParseReference(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if r.String() != tc.want || r.Location() != tc.location || r.Within() != tc.within {
				t.Errorf("got %s at %q within %q", r, r.Location(), r.Within())
			}
			if transport, _, _ := strings.Cut(tc.in, ":"); r.Transport() != transport {
				t.Errorf("transport %q", r.Transport())
			}
			d, pinned := r.Digest()
			if pinned != strings.Contains(tc.in, someDigest) || pinned && d != someDigest {
				t.Errorf("digest %q, %v", d, pinned)
			}
			again, err := ParseReference(r.String())
			if err != nil || again != r {
				t.Errorf("%s is read back as %s, %v", r, again, err)
			}
		})
	}
}

func TestLocalNames(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, s := range []string{"oci:/x", "oci:/x:latest", "oci:/y", "dir:/x", "docker-archive:/x:@0"} {
		r := parseRef(t, s)
		name := r.Named().String()
		path, ok := strings.CutPrefix(name, "local.invalid/")
		if path, ok2 := strings.CutSuffix(path, ":latest"); !ok || !ok2 || len(path) != 32 {
			t.Errorf("%s is named %s", s, name)
		}
		if seen[name] != "" {
			t.Errorf("%s and %s are both named %s", s, seen[name], name)
		}
		seen[name] = s
		again, err := ParseReference(name)
		if err != nil || again.Transport() != "" || again.String() != name {
			t.Errorf("%s is read back as %s, %v", name, again, err)
		}
	}
}
