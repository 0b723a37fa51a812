package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outcome is what a run of the program leaves.
type outcome struct {
	code     int
	out, err string
}

// peel runs the program with a cache of its own, unless args name one.
func peel(t *testing.T, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"--cache", filepath.Join(t.TempDir(), "cache")}, args...)
	code := run(t.Context(), args, streams{out: &out, err: &errs})
	return outcome{code, out.String(), errs.String()}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string // part of what standard error gets
	}{
		{"help", []string{"--help"}, 0, ""},
		{"nothing", nil, 0, ""},
		{"help of a command", []string{"mount", "--help"}, 0, ""},
		{"help command", []string{"help", "umount"}, 0, ""},
		{"completion", []string{"completion", "bash"}, 0, ""},
		{"unknown command", []string{"mnt"}, 2, `unknown command "mnt"`},
		{"nearly a command", []string{"mout"}, 2, "did you mean: peel mount"},
		{"nearer to one than to another", []string{"lss"}, 2, "did you mean: peel ls"},
		{"unknown flag", []string{"ls", "--bad", "alpine"}, 2, "see: peel ls --help"},
		{"unknown global flag", []string{"--bad"}, 2, "unknown flag: --bad"},
		{"flag without value", []string{"ls", "alpine", "--platform"}, 2, "flag needs an argument"},
		{"bad pull", []string{"ls", "--pull", "often", "alpine"}, 2, `"often" is none of missing, always, never`},
		{"bad log level", []string{"ls", "--log-level", "loud", "alpine"}, 2, "error, warn, info, debug"},
		{"bad log level where nothing is logged", []string{"images", "--log-level", "loud"}, 2, "error, warn, info, debug"},
		{"nothing to remove", []string{"images", "rm", "absent"}, 3, "no such image here"},
		{"bad level of tree", []string{"tree", "-L", "-1", "alpine"}, 2, "levels are counted from 1"},
		{"bad platform", []string{"ls", "--platform", "a/b/c/d", "alpine"}, 2, "os/arch"},
		{"bad reference", []string{"ls", "Alpine"}, 2, `write "alpine"`},
		{"bad reference with path", []string{"ls", "https://ghcr.io/a:/etc"}, 2, "invalid reference"},
		{"long reference", []string{"inspect", "a/" + long + ":" + long}, 2, "invalid reference"},
		{"missing argument", []string{"mount", "alpine"}, 2, "usage: peel mount"},
		{"spare argument", []string{"ps", "x"}, 2, "usage: peel ps"},
		{"umount nothing", []string{"umount"}, 2, "usage: peel umount"},
		{"umount all and one", []string{"umount", "--all", "x"}, 2, "usage: peel umount"},
		{"cat of an image", []string{"cat", "alpine"}, 2, "write it as IMAGE:/PATH"},
		{"stat of an image", []string{"stat", "alpine:/x", "alpine"}, 2, `"alpine" names no file`},
		{"cat of nothing", []string{"cat"}, 2, "usage: peel cat"},
		{"doctor of an image", []string{"doctor", "ghcr.io/a/b"}, 2, "is not the name of a registry"},
		{"bad hosts folder", []string{"ls", "--hosts-dir", "absent", "alpine"}, 2, "absent"},
		{"umount of what is not mounted", []string{"umount", "absent"}, 3, "not a mount of this cache folder"},
		{"never asked, not known", []string{"ls", "--pull", "never", "alpine"}, 3, "docker.io/library/alpine:latest"},
		{"no cache", []string{"--cache", "/dev/null/x", "ls", "alpine"}, 1, "choose another folder with --cache or PEEL_CACHE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := peel(t, tc.args...)
			if got.code != tc.code || !strings.Contains(got.err, tc.says) {
				t.Errorf("peel %s: exit code %d, want %d; %q does not say %q", strings.Join(tc.args, " "), got.code, tc.code, got.err, tc.says)
			}
			if got.code != 0 && (got.out != "" || !strings.HasPrefix(got.err, "peel: ")) {
				t.Errorf("a failure writes %q, and to standard error %q", got.out, got.err)
			}
		})
	}
}

func TestNoMounts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
		want outcome
	}{
		{"json", []string{"ps", "--json"}, outcome{0, "[]\n", ""}},
		{"table", []string{"ps"}, outcome{0, "MOUNTPOINT  IMAGE  DIGEST  SERVER  MOUNTED  REQUESTS  FETCHED  PRESENT\n", ""}},
		{"umount all", []string{"umount", "--all"}, outcome{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := peel(t, tc.args...); got != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestCacheFolder(t *testing.T) {
	t.Setenv(cacheEnv, "/of/environment")
	for _, tc := range []struct{ name, flag, want string }{
		{"environment", "", "/of/environment"},
		{"flag wins", "/of/flag", "/of/flag"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := (&app{cache: tc.flag}).cacheDir(); err != nil || got != tc.want {
				t.Errorf("%s %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"nothing known", debug.BuildInfo{GoVersion: "go1"}, "peel (devel) go1 "},
		{"checkout", debug.BuildInfo{GoVersion: "go1", Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
		}}, "peel (devel) revision abc (modified) go1 "},
		{"release", debug.BuildInfo{GoVersion: "go1", Main: debug.Module{Version: "v1.2.3"}}, "peel v1.2.3 go1 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := versionOf(&tc.info).String(); !strings.HasPrefix(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	var v version
	if got := peel(t, "version", "--json"); got.code != 0 || json.Unmarshal([]byte(got.out), &v) != nil || v.Go == "" {
		t.Errorf("version --json: %+v", got)
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, terminal, file string }{
		{"plain", "a b-ü", "a b-ü", "a b-ü"},
		{"newline", "a\nb", `"a\nb"`, "a\nb"},
		{"escape", "\x1b[2J", `"\x1b[2J"`, "\x1b[2J"},
		{"not UTF-8", "\xff", `"\xff"`, "\xff"},
		{"direction", "a\u202eb", `"a\u202eb"`, "a\u202eb"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := [2]string{shown(tc.in, true), shown(tc.in, false)}
			if d := cmp.Diff([2]string{tc.terminal, tc.file}, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
