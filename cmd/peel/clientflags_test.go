package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/remote"
)

// peelWith runs the program with something on standard input.
func peelWith(t *testing.T, in string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"--cache", filepath.Join(t.TempDir(), "cache")}, args...)
	code := run(t.Context(), args, streams{in: strings.NewReader(in), out: &out, err: &errs})
	return outcome{code, out.String(), errs.String()}
}

func TestClientFlagsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		in   string
		args []string
		says string
	}{
		{"user without password", "", []string{"resolve", "--username", "u", "a"}, "--password-stdin"},
		{"password without user", "p", []string{"resolve", "--password-stdin", "a"}, "--username NAME"},
		{"empty password", "\n", []string{"resolve", "--username", "u", "--password-stdin", "a"}, "empty"},
		{"user and token", "p", []string{"resolve", "--username", "u", "--password-stdin", "--token", "t", "a"}, "one of the two"},
		{"long password", strings.Repeat("x", maxSecret+1), []string{"resolve", "--username", "u", "--password-stdin", "a"}, "more than"},
		{"schema", "", []string{"resolve", "--schema", "3", "a"}, "neither 1 nor 2"},
		{"request rate", "", []string{"resolve", "--request-rate", "0", "a"}, "no number above 0"},
		{"memory", "", []string{"mount", "--memory", "much", "a", "/mnt"}, "like 64MiB"},
		{"prefetch", "", []string{"mount", "--prefetch", "all", "a", "/mnt"}, "neither auto nor none"},
		{"CA that is not there", "", []string{"resolve", "--ca", "/no/ca.pem", "a"}, "/no/ca.pem"},
		{"pull with a CA that is not there", "", []string{"pull", "--ca", "/no/ca.pem", "a"}, "/no/ca.pem"},
		{"key without certificate", "", []string{"resolve", "--client-key", "/no/key", "a"}, "--client-cert is missing"},
		{"range", "", []string{"fetch", "--range", "5", "a"}, "OFFSET:LENGTH"},
		{"range that ends before it begins", "", []string{"fetch", "--range", "9-5", "a"}, "ends before"},
		{"digest", "", []string{"fetch", "a", "sha256:1"}, "64 digits"},
		{"login without a terminal", "p", []string{"login", "r.example"}, "--password-stdin"},
		{"login without a user", "p", []string{"login", "--password-stdin", "r.example"}, "--username NAME"},
		{"login to an address", "p", []string{"login", "-u", "u", "--password-stdin", "https://r.example/v2"}, "for example: r.example"},
		{"login to a repository", "p", []string{"login", "-u", "u", "--password-stdin", "r.example/a"}, "for example: r.example"},
		{"login with a token", "p", []string{"login", "--token", "t", "r.example"}, "--token"},
		{"tags of a tag", "", []string{"tags", "r.example/a:v1"}, "leave them out"},
		{"tags of a folder", "", []string{"tags", "oci:/dir"}, "peel images oci:/dir"},
	} {
		got := peelWith(t, tc.in, tc.args...)
		if got.code != exitUsage || !strings.Contains(got.err, tc.says) {
			t.Errorf("%s: code %d: %s", tc.name, got.code, got.err)
		}
	}
}

func TestFirstRegistry(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"alpine", "/mnt"}, "docker.io"},
		{[]string{"ghcr.io/a/b:v1", "quay.io/c/d"}, "ghcr.io"},
		{[]string{"r.example:5000/a/b:/etc"}, "r.example:5000"},
		{[]string{"oci:/dir:tag", "r.example/a"}, "r.example"},
		{[]string{"/mnt"}, ""},
		{nil, ""},
	} {
		if got := firstRegistry(tc.args); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.args, got, tc.want)
		}
	}
}

// What a server is started with holds no secret, and nothing that depends on
// the folder; the secrets come by another way.
func TestServerGetsClientFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"ca.pem", "ca2.pem", "c.pem", "k.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := clientFlags{
		username: "user", token: "secret-token", cas: []string{dir + "/ca.pem", dir + "/./ca2.pem"}, clientCert: dir + "/c.pem", clientKey: dir + "/k.pem",
		insecure: true, timeout: 5e9, schema: 1, foreign: []string{"*.example"}, requestRate: 20,
		login: &remote.Credentials{Registry: "r.example", Username: "user", Password: "hunter\n2", Token: "secret-token"},
	}
	got, err := f.args()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"--client-cert=" + dir + "/c.pem", "--client-key=" + dir + "/k.pem", "--ca=" + dir + "/ca.pem", "--ca=" + dir + "/ca2.pem",
		"--insecure-skip-verify", "--timeout=5s", "--schema=1", "--request-rate=20", "--foreign-layers=*.example",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "secret") || strings.Contains(s, "user") }) {
		t.Errorf("secrets in %q", got)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() { // ends with the pipe
		defer theirs.Close()
		_ = f.sendSecrets(theirs)
		_, _ = theirs.Write([]byte("rest"))
	}()
	var there clientFlags
	if err := there.receiveSecrets(ours); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f.login, there.login); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	rest := make([]byte, 4)
	if n, err := ours.Read(rest); err != nil || string(rest[:n]) != "rest" {
		t.Errorf("behind the secrets: %q, %v", rest[:n], err)
	}
}

func TestRangeFlag(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text   string
		off, n int64 // n of -2: refused
	}{
		{"0-0", 0, 1},
		{"10-19", 10, 10},
		{"10-", 10, -1},
		{"10:5", 10, 5},
		{"10:0", 10, 0},
		{"10:", 0, -2},
		{"-5", 0, -2},
		{"5", 0, -2},
		{"a-b", 0, -2},
		{"9-5", 0, -2},
		{"0-99999999999999999999", 0, -2},
	} {
		var r rangeFlag
		err := r.Set(tc.text)
		if (err == nil) != (tc.n != -2) || err == nil && (r.off != tc.off || r.n != tc.n) {
			t.Errorf("%s: %d, %d, %v", tc.text, r.off, r.n, err)
		}
	}
}

func TestShowable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"a": "ä"}` + "\n": true, "\x1f\x8b\x08\x00": false, "a\x1b[2J": false, "": true, "cut off \xc3": true, "\xff\xfe\xfd\xfc": false,
	} {
		if got := showable([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
