package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
	"github.com/peelfs/peel/internal/testkit"
)

// published is an image of one layer in a registry and in a layout.
type published struct {
	reg      *testkit.Registry
	layout   string
	desc     ocispec.Descriptor
	manifest ocispec.Manifest
	raw      []byte
}

func publish(t *testing.T) *published {
	t.Helper()
	p := &published{reg: testkit.NewRegistry(t), layout: filepath.Join(t.TempDir(), "layout")}
	l, err := testkit.NewLayout(p.layout)
	if err != nil {
		t.Fatal(err)
	}
	if p.desc, err = l.Image(testkit.Encode(t, testkit.Gzip, testkit.File("hello", bytes.Repeat([]byte("hello\n"), 1000)))); err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("v1", p.desc); err != nil {
		t.Fatal(err)
	}
	p.reg.Push(t, p.layout, "v1", "a/b")
	if p.raw, err = os.ReadFile(p.blob(p.desc.Digest)); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(p.raw, &p.manifest); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *published) blob(d digest.Digest) string {
	return filepath.Join(p.layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func (p *published) read(t *testing.T, d digest.Digest) string {
	t.Helper()
	raw, err := os.ReadFile(p.blob(d))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The same commands, by a registry and by a folder.
func TestObjects(t *testing.T) {
	t.Parallel()
	p := publish(t)
	layer, config := p.manifest.Layers[0], p.manifest.Config
	absent := digest.FromString("absent").String()
	for _, ref := range []string{p.reg.Ref("a/b", "v1"), "oci:" + p.layout + ":v1"} {
		for _, tc := range []struct {
			name string
			args []string
			code int
			out  string
		}{
			{"manifest", []string{"manifest", "--raw", ref}, 0, string(p.raw)},
			{"manifest of the platform", []string{"manifest", "--raw", "--platform", "linux/amd64", ref}, 0, string(p.raw)},
			{"config", []string{"config", "--raw", ref}, 0, p.read(t, config.Digest)},
			{"fetch the manifest", []string{"fetch", ref}, 0, string(p.raw)},
			{"fetch the manifest by digest", []string{"fetch", ref, p.desc.Digest.String()}, 0, string(p.raw)},
			{"fetch the config", []string{"fetch", ref, config.Digest.String()}, 0, p.read(t, config.Digest)},
			{"fetch a layer", []string{"fetch", ref, layer.Digest.String()}, 0, p.read(t, layer.Digest)},
			{"fetch part of a layer", []string{"fetch", "--range", "10:20", ref, layer.Digest.String()}, 0, p.read(t, layer.Digest)[10:30]},
			{"fetch part as HTTP has it", []string{"fetch", "--range", "10-19", ref, layer.Digest.String()}, 0, p.read(t, layer.Digest)[10:20]},
			{"fetch the end", []string{"fetch", "--range", "10-", ref, layer.Digest.String()}, 0, p.read(t, layer.Digest)[10:]},
			{"fetch part of a manifest", []string{"fetch", "--range", "1-4", ref}, 0, string(p.raw[1:5])},
			{"fetch to beyond the end, as HTTP has it", []string{"fetch", "--range", "10-99999999", ref, layer.Digest.String()}, 0, p.read(t, layer.Digest)[10:]},
			{"fetch all of a manifest and more", []string{"fetch", "--range", "0-99999999", ref, p.desc.Digest.String()}, 0, string(p.raw)},
			{"fetch from the end", []string{"fetch", "--range", fmt.Sprintf("%d-", layer.Size), ref, layer.Digest.String()}, 0, ""},
			{"fetch from beyond the end", []string{"fetch", "--range", fmt.Sprintf("%d-99999999", layer.Size), ref, layer.Digest.String()}, exitUsage, ""},
			{"fetch beyond", []string{"fetch", "--range", "10:2000000", ref, layer.Digest.String()}, 2, ""},
			{"fetch what is not there", []string{"fetch", ref, absent}, 3, ""},
			{"no referrers", []string{"referrers", ref}, 0, ""},
			{"no referrers, for programs", []string{"referrers", "--json", ref}, 0, "[]\n"},
		} {
			got := peel(t, tc.args...)
			if got.code != tc.code || got.out != tc.out {
				t.Errorf("%s of %s: code %d, %d bytes: %s", tc.name, ref, got.code, len(got.out), got.err)
			}
		}
		var r resolution
		if got := peel(t, "resolve", "--json", ref); got.code != 0 || json.Unmarshal([]byte(got.out), &r) != nil ||
			r.Descriptor.Digest != p.desc.Digest || r.Descriptor.Size != int64(len(p.raw)) || r.Name != ref {
			t.Errorf("resolve %s: %d, %+v: %s", ref, got.code, r, got.err)
		}
		if got := peel(t, "resolve", ref); !strings.Contains(got.out, p.desc.Digest.String()) {
			t.Errorf("resolve %s: %q", ref, got.out)
		}
		if got := peel(t, "config", ref); !strings.Contains(got.out, "\n  \"rootfs\": {") {
			t.Errorf("config %s is not indented: %q, %s", ref, got.out, got.err)
		}
		file := filepath.Join(t.TempDir(), "layer")
		if got := peel(t, "fetch", "-o", file, ref, layer.Digest.String()); got.code != 0 {
			t.Errorf("fetch -o %s: %s", ref, got.err)
		}
		if raw, err := os.ReadFile(file); err != nil || string(raw) != p.read(t, layer.Digest) {
			t.Errorf("fetch -o %s: %d bytes, %v", ref, len(raw), err)
		}
	}
	for _, ref := range []string{p.reg.Ref("a/b", "v1"), "oci:" + p.layout + ":v1"} {
		got := peel(t, "fetch", "--range", "88888888-99999999", ref, layer.Digest.String())
		if says := fmt.Sprintf("the object has %d bytes", layer.Size); got.code != exitUsage || !strings.Contains(got.err, says) {
			t.Errorf("fetch from beyond the end of %s: code %d: %s", ref, got.code, got.err)
		}
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "to"), nil, 0o600), os.Symlink("to", link)); err != nil {
		t.Fatal(err)
	}
	got := peel(t, "fetch", "-o", link, p.reg.Ref("a/b", "v1"), layer.Digest.String())
	to, err := os.Readlink(link) // as it would a device
	if raw, _ := os.ReadFile(link); got.code != 0 || err != nil || to != "to" || string(raw) != p.read(t, layer.Digest) {
		t.Errorf("fetch to what is no file: %d bytes in %q, %v, %s", len(raw), to, err, got.err)
	}
	if got := peel(t, "fetch", p.reg.Host()+"/a/b@"+layer.Digest.String()); got.out != p.read(t, layer.Digest) {
		t.Errorf("fetch of a digest: %d bytes, %s", len(got.out), got.err)
	}
	if got := peel(t, "resolve", p.reg.Ref("a/b", "v2")); got.code != exitNotFound || !strings.Contains(got.err, "peel tags "+p.reg.Host()+"/a/b") {
		t.Errorf("unknown tag: %d, %s", got.code, got.err)
	}
}

// A registry that stores schema 1, in its own forms of answers.
func TestObjectsOfSchema1(t *testing.T) {
	t.Parallel()
	dir, _, found := testkit.Vectors(t)
	if !found {
		return
	}
	reg := testkit.NewOldRegistry(t)
	reg.PushSchema1(t, filepath.Join(dir, "tricky-schema1"), "old", "v1")
	ref := reg.Ref("old", "v1")
	var r resolution
	if got := peel(t, "resolve", "--json", ref); got.code != 0 || json.Unmarshal([]byte(got.out), &r) != nil || !schema1.IsMediaType(r.Descriptor.MediaType) {
		t.Fatalf("%d, %+v: %s", got.code, r, got.err)
	}
	raw := peel(t, "manifest", "--raw", ref)
	payload, err := schema1.Payload([]byte(raw.out))
	if err != nil || digest.FromBytes(payload) != r.Descriptor.Digest || int64(len(raw.out)) != r.Descriptor.Size {
		t.Errorf("%d bytes with digest %s, resolved to %+v: %v, %s", len(raw.out), digest.FromBytes(payload), r.Descriptor, err, raw.err)
	}
	for _, tc := range []struct {
		name string
		code int
		says string
		args []string
	}{
		{"by digest", 0, "", []string{"fetch", reg.Host() + "/old@" + r.Descriptor.Digest.String()}},
		{"by digest, as an object", 0, "", []string{"fetch", ref, r.Descriptor.Digest.String()}},
		{"configuration", 0, "", []string{"config", ref}},
		{"configuration as it is", exitUsage, "has no configuration of its own", []string{"config", "--raw", ref}},
		{"asked for", 0, "", []string{"resolve", "--schema=1", ref}},
		{"not asked for", exitNotFound, "", []string{"resolve", "--schema=2", ref}},
		{"tags", 0, "", []string{"tags", reg.Host() + "/old"}},
	} {
		got := peel(t, tc.args...)
		if got.code != tc.code || !strings.Contains(got.err, tc.says) {
			t.Errorf("%s: code %d: %s", tc.name, got.code, got.err)
		}
		if tc.args[0] != "fetch" {
			continue
		}
		// This registry signs each answer anew.
		if signed, err := schema1.Payload([]byte(got.out)); err != nil || !bytes.Equal(signed, payload) {
			t.Errorf("%s: %d bytes are signed, want %d: %v", tc.name, len(signed), len(payload), err)
		}
	}
}

// Bytes that are not those of the digest end with code 5, and in no file.
func TestFetchDamaged(t *testing.T) {
	t.Parallel()
	p := publish(t)
	layer := p.manifest.Layers[0]
	file := p.reg.BlobFile(layer)
	raw := []byte(p.read(t, layer.Digest))
	raw[len(raw)-1]++
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.blob(layer.Digest), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{p.reg.Ref("a/b", "v1"), "oci:" + p.layout + ":v1"} {
		dir := t.TempDir()
		if got := peel(t, "fetch", "-o", filepath.Join(dir, "out"), ref, layer.Digest.String()); got.code != exitVerification {
			t.Errorf("%s: code %d: %s", ref, got.code, got.err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if got := peel(t, "fetch", ref, layer.Digest.String()); got.code != exitVerification {
			t.Errorf("%s: code %d: %s", ref, got.code, got.err)
		}
	}
}

func TestTagsCommand(t *testing.T) {
	t.Parallel()
	p := publish(t)
	p.reg.Push(t, p.layout, "v1", "a/b")
	if got := peel(t, "tags", p.reg.Host()+"/a/b"); got.code != 0 || got.out != "v1\n" {
		t.Errorf("%d, %q: %s", got.code, got.out, got.err)
	}
	if got := peel(t, "tags", "--json", p.reg.Host()+"/a/b"); got.code != 0 || strings.Join(strings.Fields(got.out), "") != `["v1"]` {
		t.Errorf("%d, %q: %s", got.code, got.out, got.err)
	}
	if got := peel(t, "tags", p.reg.Host()+"/a/c"); got.code != exitNotFound {
		t.Errorf("%d, %q: %s", got.code, got.out, got.err)
	}
}

// A login by each way reaches the token server, and nobody else.
func TestLogins(t *testing.T) {
	p := publish(t)
	g := testkit.NewGuarded(t, p.reg.Host(), testkit.Guard{
		TokenLife: time.Minute, Users: map[string]string{"me": "hunter2"}, URLLife: time.Minute,
	})
	dir := t.TempDir()
	for name, value := range map[string]string{
		"HOME": dir, "DOCKER_CONFIG": filepath.Join(dir, "docker"), "REGISTRY_AUTH_FILE": "", "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "", "DOCKER_AUTH_CONFIG": "",
	} {
		t.Setenv(name, value)
	}
	ref := g.Ref("a/b", "v1")
	layer := p.manifest.Layers[0].Digest.String()
	step := func(name, in string, code int, args ...string) {
		t.Helper()
		if got := peelWith(t, in, args...); got.code != code {
			t.Errorf("%s: code %d, want %d: %s", name, got.code, code, got.err)
		}
	}
	step("nobody", "", exitUnauthorized, "resolve", ref)
	step("for one run", "hunter2\n", 0, "fetch", "--username", "me", "--password-stdin", ref, layer)
	step("nobody again", "", exitUnauthorized, "resolve", ref)
	step("wrong password", "wrong", exitUnauthorized, "login", "-u", "me", "--password-stdin", g.Host())
	if left, err := os.ReadDir(filepath.Join(dir, "docker")); err == nil && len(left) > 0 {
		t.Errorf("a wrong password was kept: %v", left)
	}
	step("login", "hunter2\n", 0, "login", "-u", "me", "--password-stdin", g.Host())
	step("with the login", "", 0, "fetch", ref, layer)
	step("a token of the registry", "", 0, "manifest", "--token", g.Issue("repository:a/b:pull"), ref)
	step("logout", "", 0, "logout", g.Host())
	step("after", "", exitUnauthorized, "resolve", ref)
	testkit.Harmless(t, "the redirect", g.Hop.Wire(), "hunter2")
	testkit.Harmless(t, "the blob server", g.Blobs.Wire(), "hunter2")
	if len(g.Blobs.Wire()) == 0 {
		t.Error("the blob server was not asked")
	}
}

// Credentials of the command line are for the registry of the first image.
func TestCredentialsStayWithTheFirstRegistry(t *testing.T) {
	t.Parallel()
	p := publish(t)
	first := testkit.NewGuarded(t, p.reg.Host(), testkit.Guard{TokenLife: time.Minute, Users: map[string]string{"me": "hunter2"}})
	second := testkit.NewGuarded(t, p.reg.Host(), testkit.Guard{TokenLife: time.Minute})
	got := peelWith(t, "hunter2", "cat", "--username", "me", "--password-stdin", first.Ref("a/b", "v1")+":/hello", second.Ref("a/b", "v1")+":/hello")
	if got.code != 0 || len(got.out) != 12000 {
		t.Errorf("code %d, %d bytes: %s", got.code, len(got.out), got.err)
	}
	for _, w := range second.Tokens.Wire() {
		if a := w.Header.Get("Authorization"); a != "" {
			t.Errorf("the second registry's token server got %q", a)
		}
	}
}

// The server of a mount gets a password that nobody sees among its arguments.
func TestMountWithPassword(t *testing.T) {
	t.Parallel()
	p := publish(t)
	g := testkit.NewGuarded(t, p.reg.Host(), testkit.Guard{TokenLife: 2 * time.Second, Users: map[string]string{"me": "hunter2"}})
	k := testkit.NewPeel(t)
	dir := k.Dir()
	cmd := k.Command(t.Context(), "mount", "--username", "me", "--password-stdin", g.Ref("a/b", "v1"), dir)
	cmd.Stdin = strings.NewReader("hunter2")
	if got := k.Finish(cmd); got.Code != 0 {
		t.Fatal(got.Stderr)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "hello"))
	if err != nil || len(raw) != 6000 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	lines := commandLines(t, dir)
	if len(lines) != 1 || strings.Contains(lines[0], "hunter2") || strings.Contains(lines[0], "username") {
		t.Errorf("the server's command line: %q", lines)
	}
	k.Umount(dir)
}

// commandLines are those of all processes that mention word.
func commandLines(t *testing.T, word string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		raw, _ := os.ReadFile(name) // may have gone
		if line := strings.ReplaceAll(string(raw), "\x00", " "); strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}
