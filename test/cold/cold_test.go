//go:build linux

package cold

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

var (
	table = flag.String("table", "", "file whose generated part is replaced by the tables")
	svg   = flag.String("svg", "", "file for the chart")
	raw   = flag.String("figures", "", "file for the figures")
)

// BenchmarkCold is everything that COLD selects; b.N is of no meaning to it.
func BenchmarkCold(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Fatal("mounting, dropping caches and starting containers take root")
	}
	sel := selected()
	if words := sel.unknown(); len(words) > 0 {
		b.Fatalf("COLD names %q, which is nothing", words)
	}
	out := &results{Sizes: map[string]int64{}}
	for _, w := range workloads() {
		if !sel.has(w.name, workloadNames()) {
			continue
		}
		part(b, w.name, func(t testing.TB) { newBench(t, w, sel, out).all(t) })
		if len(sel.words) > 0 {
			continue // not all of it: no file is written
		}
		if err := out.write(*table, *svg, *raw); err != nil {
			b.Fatal(err)
		}
	}
	b.Log("\n" + out.document())
}

// write writes the files that have a name.
func (r *results) write(page, picture, figures string) error {
	var errs []error
	if page != "" {
		errs = append(errs, replacePart(page, machine()+r.document()))
	}
	if picture != "" {
		errs = append(errs, os.WriteFile(picture, []byte(r.chart()), 0o644))
	}
	if figures != "" {
		data, err := r.raw()
		if err == nil {
			err = os.WriteFile(figures, data, 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// machine says in one line where the figures come from.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error() + "\n\n"
	}
	return fmt.Sprintf("%d processors, Linux %s, %s; one run of each, three of the local disk.\n\n",
		runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), time.Now().UTC().Format("2006-01-02"))
}

// BenchmarkImages only builds the images, and says where they are.
func BenchmarkImages(b *testing.B) {
	for b.Loop() {
		for _, name := range testkit.Workloads() {
			b.Logf("%s %s", name, testkit.Workload(b, name))
		}
	}
}
