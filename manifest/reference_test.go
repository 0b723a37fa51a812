package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const someDigest = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"

func TestParseReference(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want, digest string }{
		{"bare name", "alpine", "docker.io/library/alpine:latest", ""},
		{"tag", "alpine:3.20", "docker.io/library/alpine:3.20", ""},
		{"user", "peelfs/peel", "docker.io/peelfs/peel:latest", ""},
		{"old name of the hub", "index.docker.io/alpine", "docker.io/library/alpine:latest", ""},
		{"host", "ghcr.io/a/b:tag", "ghcr.io/a/b:tag", ""},
		{"port", "host:5000/a/b", "host:5000/a/b:latest", ""},
		{"localhost", "localhost/a", "localhost/a:latest", ""},
		{"address", "[::1]:5000/a:b", "[::1]:5000/a:b", ""},
		{"digest", "alpine@" + someDigest, "docker.io/library/alpine@" + someDigest, someDigest},
		{"tag and digest", "alpine:3.20@" + someDigest, "docker.io/library/alpine:3.20@" + someDigest, someDigest},
		{"name of a transport without colon", "oci", "docker.io/library/oci:latest", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, err := ParseReference(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			d, ok := r.Digest()
			if r.String() != tc.want || d.String() != tc.digest || ok != (tc.digest != "") {
				t.Errorf("got %s with digest %q, want %s with %q", r, d, tc.want, tc.digest)
			}
			if r.Named().String() != tc.want {
				t.Errorf("Named is %s", r.Named())
			}
		})
	}
}

func TestParseReferenceErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", "it is empty; write an image's name"},
		{"long", strings.Repeat("a", maxReference+1), "more than 1024"},
		{"space", "alpine 3", "holds a space"},
		{"control character", "alp\x1bine", `"alp\x1bine": it holds`},
		{"invalid UTF-8", "alp\xffine", "cannot be printed"},
		{"scheme", "https://ghcr.io/a/b", `leave out "https://" and write "ghcr.io/a/b"`},
		{"skopeo's scheme", "docker://alpine", `leave out "docker://" and write "alpine"`},
		{"Helm's scheme", "oci://ghcr.io/a/b", `leave out "oci://" and write "ghcr.io/a/b"`},
		{"Docker's daemon", "docker-daemon:alpine:3", "docker save -o FILE.tar NAME and write docker-archive:FILE.tar"},
		{"podman's storage", "containers-storage:alpine", "and write oci-archive:FILE.tar"},
		{"transport alone", "oci:", "it names no file or folder; write oci:DIR[:TAG]"},
		{"tag without folder", "oci::tag", "it names no file or folder"},
		{"digest without folder", "oci:@" + someDigest, "it names no file or folder"},
		{"nothing behind the colon", "docker-archive:x.tar:", `":" is no name or tag; write docker-archive:FILE[:NAME[:TAG]]`},
		{"local with a bad digest", "oci:dir@sha256:abc", `"sha256:abc" is neither a digest nor the number of an image`},
		{"local with tag and digest", "oci:dir:tag@" + someDigest, "is a tag and a digest; write oci:DIR[:TAG] or oci:DIR@DIGEST"},
		{"local with a bad tag", "oci:dir:a b", `"a b" is not a tag`},
		{"local with a path", "oci:dir:/etc", `"/etc" is no name or tag; write oci:DIR`},
		{"local with tag and path", "docker-archive:x.tar:alpine:3:/etc", `"alpine:3:/etc" is no name or tag`},
		{"folder with a path", "dir:x:/etc", "behind which a path in the image begins"},
		{"local with a bad name", "docker-archive:x.tar:Alpine", `"Alpine" is not a name`},
		{"local with a bad number", "docker-archive:x.tar:@x", `"x" is not the number of an image`},
		{"archive with a digest", "docker-archive:x.tar:alpine@" + someDigest, "holds a digest"},
		{"local with a control character", "oci:a\x1b[2Jb", `"oci:a\x1b[2Jb": it holds a character`},
		{"long path", "dir:" + strings.Repeat("a", maxLocal+1), "more than 5120"},
		{"long tag of a layout", "oci:dir:" + strings.Repeat("a", maxReference+1), "more than 1024"},
		{"upper case", "Alpine", `write "alpine"`},
		{"upper case, tag kept", "ghcr.io/A/B:Tag", `write "ghcr.io/a/b:Tag"`},
		{"colon only", "alpine:", `write "alpine", or "alpine:/"`},
		{"bad tag", "alpine:-x", `"-x" is not a tag`},
		{"long tag", "alpine:" + strings.Repeat("x", 129), "is not a tag; tags are up to 128"},
		{"short digest", "alpine@sha256:abc", `"sha256:abc" is not a digest`},
		{"no digest", "alpine@", `"" is not a digest`},
		{"unknown algorithm", "alpine@md5:d41d8cd98f00b204e9800998ecf8427e", "is not a digest"},
		{"image ID", strings.TrimPrefix(someDigest, "sha256:"), "it is an image's ID"},
		{"long name", "ghcr.io/" + strings.Repeat("a/", 140) + "a", "longer than 255"},
		{"trailing slash", "ghcr.io/a/", "write [registry/]name"},
		{"path", "/tmp/image.tar", "it looks like a path; write oci:DIR"},
		{"path from here", "./image", "docker-archive:FILE"},
		{"dot", ".image", "write [registry/]name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, err := ParseReference(tc.in)
			if !errors.Is(err, ErrReference) || !errdefs.IsInvalidArgument(err) {
				t.Fatalf("got %v, %v", r, err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to hold %q", err, tc.want)
			}
		})
	}
}

func TestSplitPath(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in, ref, path string
		ok                  bool
	}{
		{"name", "alpine:/etc/os-release", "alpine", "/etc/os-release", true},
		{"root", "alpine:/", "alpine", "/", true},
		{"tag", "alpine:3.20:/etc", "alpine:3.20", "/etc", true},
		{"port and tag", "host:5000/a/b:tag:/etc/x", "host:5000/a/b:tag", "/etc/x", true},
		{"digest", "a@" + someDigest + ":/x", "a@" + someDigest, "/x", true},
		{"IPv6", "[::1]:5000/a:/x", "[::1]:5000/a", "/x", true},
		{"border within the path", "a:/x:/y", "a", "/x:/y", true},
		{"two slashes", "a://x", "a", "//x", true},
		{"trailing slash kept", "a:/etc/", "a", "/etc/", true},
		{"no name", ":/etc", "", "/etc", true},
		{"no path", "host:5000/a/b:tag", "host:5000/a/b:tag", "", false},
		{"nothing", "", "", "", false},
		{"scheme", "https://ghcr.io/a:/x", "https://ghcr.io/a:/x", "", false},
		{"transport", "oci:/tmp/x", "oci:/tmp/x", "", false},
		{"transport with two slashes", "oci://tmp/x", "oci://tmp/x", "", false},
		{"relative layout", "oci:dir:tag:/etc/x", "oci:dir:tag", "/etc/x", true},
		{"relative layout without tag", "oci:dir:/etc/x", "oci:dir", "/etc/x", true},
		{"layout and digest", "oci:dir@" + someDigest + ":/x", "oci:dir@" + someDigest, "/x", true},
		{"archive with name and tag", "docker-archive:img.tar:alpine:3:/etc", "docker-archive:img.tar:alpine:3", "/etc", true},
		{"archive with port, name and tag", "docker-archive:/i.tar:host:5000/a:3:/", "docker-archive:/i.tar:host:5000/a:3", "/", true},
		{"archive and number", "docker-archive:/i.tar:@2:/etc", "docker-archive:/i.tar:@2", "/etc", true},
		{"folder", "dir:/x/y:/etc", "dir:/x/y", "/etc", true},
		{"transport and path", "oci-archive:/tmp/x.tar:/etc", "oci-archive:/tmp/x.tar", "/etc", true},
		{"name of a transport in full", "docker.io/library/oci:/tmp/x", "docker.io/library/oci", "/tmp/x", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref, path, ok := SplitPath(tc.in)
			if ref != tc.ref || path != tc.path || ok != tc.ok {
				t.Errorf("got %q, %q, %v", ref, path, ok)
			}
		})
	}
}

func TestZeroReference(t *testing.T) {
	t.Parallel()
	var r Reference
	if _, ok := r.Digest(); ok || r.String() != "" || r.Named() != nil {
		t.Errorf("got %q", r)
	}
	if _, err := Resolve(t.Context(), newStore(), r, DefaultPlatform()); !errors.Is(err, ErrReference) {
		t.Errorf("Resolve: %v", err)
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"", "alpine", "alpine:3.20", "ghcr.io/a/b:tag@" + someDigest, "[::1]:5000/a:b:/etc",
		"https://a/b", "oci:dir", "oci:/a/dir:tag:/etc", "oci:d@" + someDigest, "dir:/a b:c", "Alpine:",
		"docker-archive:x.tar:host:5000/a:3:/etc", "docker-archive:/x@2", "docker-dir:/x:@0", "oci:///x", "docker-daemon:x", "a@sha256:", "a/", ":/", "a:/b:/c", "\xff",
		"INDEX.docker.io/a", "localhost:5000/UPPER:X", "a__b/c..d", strings.Repeat("a/", 200),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ref, path, ok := SplitPath(s); ok && ref+":"+path != s {
			t.Errorf("SplitPath(%q) = %q, %q", s, ref, path)
		}
		r, err := ParseReference(s)
		if err != nil {
			if !errors.Is(err, ErrReference) || len(err.Error()) > 3000 {
				t.Errorf("ParseReference(%q): %v", s, err)
			}
			return
		}
		if _, _, ok := SplitPath(s); ok {
			t.Errorf("%q is a reference and has a path", s)
		}
		again, err := ParseReference(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q became %q, which becomes %q, %v", s, r, again, err)
		}
	})
}
