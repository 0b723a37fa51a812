//go:build linux

package bench

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// work reads m in some way and returns what it measured.
type work func(b *testing.B, m *mount) float64

// cold runs w with nothing of the mount in the kernel's caches.
func cold(w work) work {
	return func(b *testing.B, m *mount) float64 {
		b.Helper()
		unix.Sync()
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			b.Fatal(err)
		}
		return w(b, m)
	}
}

// warm runs w twice and returns the second measurement.
func warm(w work) work {
	return func(b *testing.B, m *mount) float64 {
		b.Helper()
		w(b, m)
		return w(b, m)
	}
}

func seconds(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

// timed runs a shell command that throws its output away.
func timed(b *testing.B, command string) float64 {
	b.Helper()
	return seconds(func() {
		if out, err := exec.CommandContext(b.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			b.Fatalf("%s: %v\n%s", command, err, out)
		}
	})
}

func find(b *testing.B, m *mount) float64 {
	b.Helper()
	return timed(b, "find "+m.dir+" -printf '%s %m %T@\\n' > /dev/null")
}

// tarAll pipes: GNU tar reads no file data when its archive is /dev/null.
func tarAll(b *testing.B, m *mount) float64 {
	b.Helper()
	return timed(b, "tar -C "+m.dir+" --exclude=./"+bigName+" -cf - . | cat > /dev/null")
}

func statAll(b *testing.B, m *mount) float64 {
	b.Helper()
	return seconds(func() {
		var st unix.Stat_t
		for _, p := range m.tr.paths {
			if err := unix.Lstat(filepath.Join(m.dir, p), &st); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func sequential(b *testing.B, m *mount) float64 {
	b.Helper()
	s := timed(b, "dd if="+filepath.Join(m.dir, bigName)+" of=/dev/null bs=1M status=none")
	return bigSize / 1e6 / s
}

// random reads 4 KiB blocks of the large file, each at most once.
func random(b *testing.B, m *mount) float64 {
	b.Helper()
	f, err := os.Open(filepath.Join(m.dir, bigName))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		b.Fatal(err)
	}
	const reads, block = 20000, 4096
	blocks := rand.New(rand.NewPCG(1, 2)).Perm(bigSize / block)[:reads]
	buf := make([]byte, block)
	s := seconds(func() {
		for _, i := range blocks {
			if _, err := f.ReadAt(buf, int64(i)*block); err != nil {
				b.Fatal(err)
			}
		}
	})
	return reads / s
}

// resident returns the server's anonymous and file-backed resident memory, MB.
func (m *mount) resident(b *testing.B) (anon, mapped float64) {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	if err != nil {
		b.Fatal(err)
	}
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(data), name+":")
		kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		return kb / 1024
	}
	return field("RssAnon"), field("RssFile")
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// show gives the median and the range of the rounds.
func show(v []float64, unit string) string {
	format := "%.2f"
	if unit != "s" {
		format = "%.0f"
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+") %s", median(v), slices.Min(v), slices.Max(v), unit)
}

// machine says in one line where the figures come from.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error() + "\n\n"
	}
	cpu := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, ok := strings.CutPrefix(s.Text(), "model name"); ok {
				cpu = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s.\n\n", cpu, cpus(), unix.ByteSliceToString(u.Release[:]), time.Now().UTC().Format("2006-01-02"))
}

func cpus() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0
	}
	return set.Count()
}
