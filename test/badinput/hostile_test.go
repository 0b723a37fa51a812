//go:build linux

package badinput

import (
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"

	"github.com/peelfs/peel/internal/testkit"
)

// mostMemory bounds what a run may need for a hostile layer.
const mostMemory = 1 << 30 // bytes

func TestHostileTOC(t *testing.T) {
	t.Parallel()
	first := func(toc *estargz.JTOC, name string) *estargz.TOCEntry {
		for _, e := range toc.Entries {
			if e.Name == name && e.Type == "reg" {
				return e
			}
		}
		panic("no entry " + name)
	}
	add := func(entries ...*estargz.TOCEntry) func(*estargz.JTOC) {
		return func(toc *estargz.JTOC) { toc.Entries = append(toc.Entries, entries...) }
	}
	for _, tc := range []struct {
		name   string
		change func(*estargz.JTOC)
	}{
		{"a name that leaves the root", add(&estargz.TOCEntry{Name: "../../escape", Type: "symlink", LinkName: "x"})},
		{"a hard link that leaves the root", add(&estargz.TOCEntry{Name: "out", Type: "hardlink", LinkName: "../../../etc/passwd"})},
		{"a hard link to itself", add(&estargz.TOCEntry{Name: "self", Type: "hardlink", LinkName: "self"})},
		{"hard links in a circle", add(
			&estargz.TOCEntry{Name: "one", Type: "hardlink", LinkName: "two"},
			&estargz.TOCEntry{Name: "two", Type: "hardlink", LinkName: "one"})},
		{"a hard link to a directory", add(&estargz.TOCEntry{Name: "dirlink", Type: "hardlink", LinkName: "etc"})},
		{"a hard link to nothing", add(&estargz.TOCEntry{Name: "lost", Type: "hardlink", LinkName: "no/such/file"})},
		{"an unknown type", add(&estargz.TOCEntry{Name: "what", Type: "teapot"})},
		{"a negative size", func(toc *estargz.JTOC) { first(toc, "etc/data").Size = -1 }},
		{"a size beyond the chunks", func(toc *estargz.JTOC) { first(toc, "etc/data").Size = math.MaxInt64 }},
		{"a negative offset", func(toc *estargz.JTOC) { first(toc, "etc/data").Offset = -5 }},
		{"an offset beyond the blob", func(toc *estargz.JTOC) { first(toc, "etc/data").Offset = 1 << 50 }},
		{"overlapping chunks", func(toc *estargz.JTOC) {
			e := first(toc, "etc/data")
			e.ChunkSize = 50_000
			toc.Entries = append(toc.Entries, &estargz.TOCEntry{Name: e.Name, Type: "chunk", Offset: e.Offset + 1, ChunkOffset: 40_000, ChunkSize: 50_000, ChunkDigest: e.ChunkDigest})
		}},
		{"a negative chunk", func(toc *estargz.JTOC) { first(toc, "etc/data").ChunkSize = -7 }},
		{"a chunk outside its file", func(toc *estargz.JTOC) { first(toc, "etc/data").ChunkOffset = 1 << 40 }},
		{"no digest", func(toc *estargz.JTOC) { e := first(toc, "etc/data"); e.Digest, e.ChunkDigest = "", "" }},
		{"huge attributes", add(&estargz.TOCEntry{Name: "fat", Type: "dir", Xattrs: map[string][]byte{"user.fat": make([]byte, 10<<20)}})},
		{"a name too long", add(&estargz.TOCEntry{Name: strings.Repeat("n", 300), Type: "dir"})},
		{"a path too deep", add(&estargz.TOCEntry{Name: strings.Repeat("d/", 100_000), Type: "dir"})},
		{"a million entries", func(toc *estargz.JTOC) {
			for i := range 1_000_001 {
				toc.Entries = append(toc.Entries, &estargz.TOCEntry{Name: fmt.Sprintf("%x", i), Type: "dir"})
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			archive, err := testkit.Tar(testkit.Dir("etc"), testkit.File("etc/data", testkit.Noise(1, 90_000)), testkit.File("etc/more", testkit.Noise(2, 90_000)))
			if err != nil {
				t.Fatal(err)
			}
			l, err := testkit.HostileStargz(archive, tc.change)
			if err != nil {
				t.Fatal(err)
			}
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "hos/tile", "v1", l)
			p := testkit.NewPeel(t)
			ref := reg.Ref("hos/tile", "v1")
			expect(t, p, p.Run("mount", ref, p.Dir()), testkit.Failed, l.Desc.Digest.String())
			cmd := p.Command(t.Context(), "ls", "-R", ref)
			expect(t, p, p.Finish(cmd), testkit.Failed, l.Desc.Digest.String())
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); !ok || usage.Maxrss<<10 > mostMemory {
				t.Errorf("it took %d MiB of memory", usage.Maxrss>>10)
			}
		})
	}
}

// TestChunkInsideAnother: where one file's chunk begins inside another's, the
// first has too few bytes to be right, and is not shown.
func TestChunkInsideAnother(t *testing.T) {
	t.Parallel()
	data := testkit.Noise(1, 90_000)
	archive, err := testkit.Tar(testkit.File("one", data), testkit.File("two", testkit.Noise(2, 90_000)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := testkit.HostileStargz(archive, func(toc *estargz.JTOC) {
		var one, two *estargz.TOCEntry
		for _, e := range toc.Entries {
			switch e.Name {
			case "one":
				one = e
			case "two":
				two = e
			}
		}
		two.Offset = one.Offset + 1000
	})
	if err != nil {
		t.Fatal(err)
	}
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "hos/tile", "inside", l)
	p := testkit.NewPeel(t)
	for _, name := range []string{"/one", "/two"} {
		r := p.Run("cat", reg.Ref("hos/tile", "inside")+":"+name)
		if r.Stdout != "" {
			t.Errorf("%d bytes of %s got through", len(r.Stdout), name)
		}
		if r.Code != testkit.Unverified && r.Code != testkit.Failed {
			t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
		}
	}
}

// TestStrangeTOC: what looks hostile but means something is shown as an eager
// unpack would.
func TestStrangeTOC(t *testing.T) {
	t.Parallel()
	archive, err := testkit.Tar(testkit.Dir("etc"), testkit.File("etc/data", []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	l, err := testkit.HostileStargz(archive, func(toc *estargz.JTOC) {
		toc.Entries = append(toc.Entries,
			&estargz.TOCEntry{Name: "/absolute", Type: "dir", Mode: 0o700},
			&estargz.TOCEntry{Name: "./etc/../dotted", Type: "dir", Mode: 0o700},
			&estargz.TOCEntry{Name: "no/parents/at/all", Type: "symlink", LinkName: "/"})
	})
	if err != nil {
		t.Fatal(err)
	}
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "hos/tile", "strange", l)
	p := testkit.NewPeel(t)
	got := strings.Fields(p.Must("ls", reg.Ref("hos/tile", "strange")).Stdout)
	if strings.Join(got, " ") != "absolute dotted etc no" {
		t.Errorf("ls shows %q", got)
	}
}
