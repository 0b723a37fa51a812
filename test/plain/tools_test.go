//go:build linux

package plain

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	klauspost "github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// A compressor turns a tar into the blob of a layer.
type compressor struct {
	name  string
	media string
	blob  func(t *testing.T, tar []byte) []byte
}

// compressors are the tools that layers come from, with the options that
// change how their output can be entered.
func compressors() []compressor {
	const gz, zst = ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd
	out := []compressor{
		{"tar", ocispec.MediaTypeImageLayer, func(_ *testing.T, tar []byte) []byte { return tar }},
		{"go members of 64 KiB with a field", gz, members(64<<10, flate.DefaultCompression)},
		{"go members of 4 MiB", gz, members(4<<20, flate.BestCompression)},
		{"go stored", gz, members(1<<30, flate.NoCompression)},
		{"go huffman only", gz, members(1<<30, flate.HuffmanOnly)},
		{"go", gz, members(1<<30, flate.DefaultCompression)},
		{"klauspost stateless", gz, stateless},
		{"zstd frames", zst, func(t *testing.T, tar []byte) []byte { t.Helper(); return zstdFrames(t, tar, 3<<20).Blob }},
		{"zstd tiny frames", zst, func(t *testing.T, tar []byte) []byte { t.Helper(); return zstdFrames(t, tar, 10_000).Blob }},
	}
	for _, c := range []struct{ media, line string }{
		{gz, "gzip -1"},
		{gz, "gzip -9"},
		{gz, "gzip --rsyncable"},
		{gz, "pigz -p 2"},
		{gz, "pigz -p 4 -b 32 -1"},
		{gz, "pigz -i -b 128"},
		{gz, "pigz -p 1 -C layer"},
		{gz, "pigz --rsyncable"},
		{zst, "zstd -1"},
		{zst, "zstd -12"},
		{zst, "zstd -T2 -B1MiB"},
		{zst, "zstd --long=27"},
		{zst, "zstd --no-check --rsyncable -T2"},
		{zst, "pzstd -p 2 -3"},
	} {
		out = append(out, compressor{c.line, c.media, func(t *testing.T, tar []byte) []byte { t.Helper(); return tool(t, c.line, tar) }})
	}
	return out
}

// tool runs a command that compresses its input.
func tool(t *testing.T, line string, tar []byte) []byte {
	t.Helper()
	words := strings.Fields(line)
	cmd := exec.CommandContext(t.Context(), words[0], append(words[1:], "-c")...)
	cmd.Stdin = bytes.NewReader(tar)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s (make deps installs it)", line, err, &errors)
	}
	return out
}

// members writes gzip members of size bytes of tar, each with an extra field,
// a name and a comment in its header.
func members(size, level int) func(*testing.T, []byte) []byte {
	return func(t *testing.T, tar []byte) []byte {
		t.Helper()
		var b bytes.Buffer
		for part := range slices.Chunk(tar, size) {
			w, err := gzip.NewWriterLevel(&b, level)
			if err != nil {
				t.Fatal(err)
			}
			w.Extra, w.Name, w.Comment = []byte("BC\x02\x00\x00\x00"), "layer.tar", "of a test"
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
}

// stateless compresses every write on its own, and flushes.
func stateless(t *testing.T, tar []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := klauspost.NewWriterLevel(&b, klauspost.StatelessCompression)
	if err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(tar, 300_000) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree is a layer of many small files and of what compressors treat specially:
// noise, zeros, and one byte for long.
func tree(t *testing.T) []testkit.Entry {
	t.Helper()
	entries := []testkit.Entry{
		testkit.File("noise", testkit.Noise(1, 5_000_000)),
		testkit.File("zeros", make([]byte, 3_000_000)),
		testkit.File("text", text(2, 4_000_000)),
		testkit.File("letters", bytes.Repeat([]byte("a"), 1_000_000)),
		testkit.File("mixed", slices.Concat(text(3, 700_000), testkit.Noise(4, 700_000), make([]byte, 700_000))),
		testkit.File("empty", nil),
		testkit.Dir("dir"), testkit.File("dir/file", []byte("content")).Xattr("user.of", "a test"),
		testkit.Symlink("dir/link", "../text"), testkit.Hardlink("dir/again", "noise"),
	}
	for i := range 2000 {
		entries = append(entries, testkit.File(fmt.Sprintf("small-%d", i), text(uint64(100+i), i)))
	}
	return entries
}

// TestTools: whatever compressed a layer, its mount shows the same files, from
// the pass that streamed it and, evicted, from ranges.
func TestTools(t *testing.T) {
	t.Parallel()
	entries := tree(t)
	tar := archive(t, entries)
	want := unpacked(t, tar)
	reg := testkit.NewRegistry(t)
	for i, c := range compressors() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			compare(t, reg, fmt.Sprint("plain/tool-", i), layerOf(c.media, c.blob(t, tar), tar), want)
		})
	}
	few := slices.Concat(entries[6:9], entries[10:400]) // zopfli takes minutes for the others
	t.Run("zopfli", func(t *testing.T) {
		t.Parallel()
		tar := archive(t, few)
		blob := tool(t, "pigz -11 -I 1 -O -b 512", tar)
		compare(t, reg, "plain/zopfli", layerOf(ocispec.MediaTypeImageLayerGzip, blob, tar), unpacked(t, tar))
	})
}

// unpacked is what GNU tar makes of an archive.
func unpacked(t *testing.T, archive []byte) []testkit.Row {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "tar", "--xattrs", "--xattrs-include=*", "-C", dir, "-xpf", "-")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return list(t, dir)
}

// list lists a tree without its root, which the layers do not describe.
func list(t *testing.T, dir string) []testkit.Row {
	t.Helper()
	rows, err := testkit.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// compare mounts a layer, reads it, evicts it and reads it again.
func compare(t *testing.T, reg *testkit.Registry, repo string, l testkit.Layer, want []testkit.Row) {
	t.Helper()
	reg.Publish(t, repo, "v1", l)
	proxy := testkit.NewProxy(t, reg.Host())
	p := testkit.NewPeel(t)
	root := p.Mount(proxy.Ref(repo, "v1"))
	for _, d := range testkit.Differences(want, list(t, root), testkit.Exact) {
		t.Error(d)
	}
	proxy.Log()
	span := gone(t, p, root)
	for _, d := range testkit.Differences(want, list(t, root), testkit.Exact) {
		t.Errorf("evicted: %s", d)
	}
	log := proxy.Log()
	t.Logf("spans of %d bytes on average; again: %d requests, %d bytes of %d", span, len(log), testkit.Bytes(log), l.Desc.Size)
	if n := testkit.Bytes(log); n > l.Desc.Size*13/10+span || n < l.Desc.Size/2 {
		t.Errorf("%d bytes fetched again, of a layer of %d", n, l.Desc.Size)
	}
}
