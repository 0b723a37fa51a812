//go:build linux

package explain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	files    = 12
	fileSize = 300_000
)

func content(i int) []byte { return testkit.Noise(uint64(300+i), fileSize) }

func name(i int) string { return fmt.Sprintf("data/%d", i) }

// entries are the files of an image.
func entries() []testkit.Entry {
	out := []testkit.Entry{testkit.Dir("data")}
	for i := range files {
		out = append(out, testkit.File(name(i), content(i)))
	}
	return out
}

// readAll reads every file below root, as the kernel asks for it.
func readAll(t *testing.T, root string) {
	t.Helper()
	for i := range files {
		if got, err := os.ReadFile(filepath.Join(root, name(i))); err != nil || !bytes.Equal(got, content(i)) {
			t.Errorf("%s: %d bytes, %v", name(i), len(got), err)
		}
	}
}

// forget drops the kernel's pages of every file.
func forget(t *testing.T, root string) {
	t.Helper()
	for i := range files {
		if err := testkit.Forget(filepath.Join(root, name(i))); err != nil {
			t.Fatal(err)
		}
	}
}

// lines reads a trace, all of whose lines must be whole.
func lines(t *testing.T, file string) []traceLine {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []traceLine
	for line := range strings.Lines(string(data)) {
		var l traceLine
		if err := json.Unmarshal([]byte(line), &l); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("line %d: %q: %v", len(out)+1, line, err)
		}
		out = append(out, l)
	}
	return out
}

// covers complains unless some reads of a file are all of it, none twice.
func covers(t *testing.T, file string, reads []traceLine) {
	t.Helper()
	slices.SortFunc(reads, func(a, b traceLine) int { return cmp.Compare(a.Off, b.Off) })
	end := int64(0)
	for _, r := range reads {
		if r.Off != end || r.Addr-r.Off != reads[0].Addr-reads[0].Off || r.Error != "" || r.Millis < 0 {
			t.Errorf("%s: %+v, after %d bytes", file, r, end)
		}
		end = r.Off + r.Len
	}
	if end != fileSize {
		t.Errorf("%s: %d of %d bytes were read", file, end, fileSize)
	}
}

// TestTrace: the lines are the reads that were made: everything once, from the
// network where it was not in the cache, and a second time, when the kernel has
// forgotten it, from the store.
func TestTrace(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		form  testkit.Form
		flags []string
		first string // where the first reads come from
	}{
		{testkit.Stargz, nil, "network"},
		{testkit.ZstdChunked, nil, "network"},
		{testkit.Gzip, nil, "store"}, // it was streamed
		{testkit.Gzip, []string{"--early"}, "store"},
	} {
		t.Run(fmt.Sprint(tc.form, tc.flags), func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "trace", "v1", testkit.Encode(t, tc.form, testkit.File("base", testkit.Noise(1, 5000))), testkit.Encode(t, tc.form, entries()...))
			p := testkit.NewPeel(t)
			file := filepath.Join(t.TempDir(), "trace")
			root := p.Mount(reg.Ref("trace", "v1"), append(tc.flags, "--prefetch", "none", "--trace", file)...)
			readAll(t, root)
			half := len(lines(t, await(t, file, files)))
			forget(t, root)
			readAll(t, root)
			p.Umount(root)

			all := lines(t, file)
			for k, part := range [][]traceLine{all[:half], all[half:]} {
				byPath := map[string][]traceLine{}
				network, last := 0, 0.0
				for _, l := range part {
					byPath[l.Path] = append(byPath[l.Path], l)
					if l.From == "network" {
						network++
					}
					if l.Layer != 1 || l.T < 0 || l.T > 600 {
						t.Errorf("%+v", l)
					}
					last = max(last, l.T)
				}
				if k == 0 && (tc.first == "network") != (network > 0) || k == 1 && network > 0 {
					t.Errorf("pass %d: %d of %d reads came from the network", k, network, len(part))
				}
				for i := range files {
					covers(t, name(i), byPath[name(i)])
				}
				if len(byPath) != files || last == 0 {
					t.Errorf("pass %d: files %v", k, byPath)
				}
			}
		})
	}
}

// await returns file when the trace there has n whole files.
func await(t *testing.T, file string, n int) string {
	t.Helper()
	for {
		size := int64(0)
		for _, l := range lines(t, file) {
			size += l.Len
		}
		if size >= int64(n*fileSize) {
			return file
		}
		if t.Context().Err() != nil {
			t.Fatal("the trace never got to its end")
		}
	}
}

// TestTraceOnFullDisk: reads go on when there is no room for their lines, which
// the log tells; what the file has are whole lines.
func TestTraceOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,nr_inodes=4"); err != nil {
		t.Fatal("no tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "trace", "v1", testkit.Encode(t, testkit.Stargz, entries()...))
	p := testkit.NewPeel(t)
	file := filepath.Join(dir, "trace")
	root := p.Mount(reg.Ref("trace", "v1"), "--prefetch", "none", "--trace", file)
	for range 4 {
		readAll(t, root)
		forget(t, root)
	}
	p.Umount(root)
	if n := len(lines(t, file)); n == 0 || n >= 4*files {
		t.Errorf("%d lines", n)
	}
	logs := p.Logs()
	if strings.Count(logs, "no space left on device") != 1 || !strings.Contains(logs, "lost=") {
		t.Errorf("the log does not tell once:\n%s", logs)
	}
}

// TestTraceRefused: what cannot be written to is told before anything is
// mounted.
func TestTraceRefused(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "trace", "v1", testkit.Encode(t, testkit.Stargz, testkit.File("a", nil)))
	p := testkit.NewPeel(t)
	root := p.Dir()
	for _, tc := range []struct {
		name, file string
		flags      []string
		code       int
		says       string
	}{
		{"below the mount point", filepath.Join(root, "trace"), nil, testkit.Usage, "the mount would hide it"},
		{"no folder", filepath.Join(root+"-no", "trace"), nil, testkit.Failed, "no such file or directory"},
		{"in the foreground", filepath.Join(root, "trace"), []string{"--foreground"}, testkit.Usage, "the mount would hide it"},
		{"a device", "/dev/full", nil, testkit.Usage, "not a regular file"},
	} {
		r := p.Run(append(append([]string{"mount", "--trace", tc.file}, tc.flags...), reg.Ref("trace", "v1"), root)...)
		if r.Code != tc.code || !strings.Contains(r.Stderr, tc.says) {
			t.Errorf("%s: exit code %d\n%s", tc.name, r.Code, r.Stderr)
		}
	}
	if m := p.Mounts(); len(m) != 0 {
		t.Errorf("mounted: %v", m)
	}
}
