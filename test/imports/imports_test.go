package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const maxLines = 500

func TestArrowsAreChecked(t *testing.T) {
	t.Parallel()
	const m = module + "/"
	for _, tc := range []struct {
		name string
		pkg  pkg
		want []string
	}{
		{"foreign imports are free", pkg{path: m + "layer", imports: []string{"io", "github.com/klauspost/compress/zstd"}}, nil},
		{"leaf to internal", pkg{path: m + "layer", imports: []string{m + "internal/flight"}}, nil},
		{"leaf to its own folder", pkg{path: m + "layer/inflate", imports: []string{m + "layer/ztoc"}}, nil},
		{"leaf to leaf", pkg{path: m + "layer", imports: []string{m + "cache"}}, []string{m + "layer imports " + m + "cache"}},
		{"leaf to leaf in a test", pkg{path: m + "remote", testImports: []string{m + "manifest"}}, []string{m + "remote imports " + m + "manifest in a test"}},
		{"leaf upwards", pkg{path: m + "layer/ztoc", imports: []string{m + "fs/tree"}}, []string{m + "layer/ztoc imports " + m + "fs/tree"}},
		{"fs to remote", pkg{path: m + "fs", imports: []string{m + "remote"}}, []string{m + "fs imports " + m + "remote"}},
		{"fs to tree", pkg{path: m + "fs", imports: []string{m + "fs/tree", m + "layer", m + "manifest"}}, nil},
		{"tree to fs", pkg{path: m + "fs/tree", imports: []string{m + "fs"}}, []string{m + "fs/tree imports " + m + "fs"}},
		{"tree to manifest", pkg{path: m + "fs/tree", imports: []string{m + "manifest"}}, []string{m + "fs/tree imports " + m + "manifest"}},
		{"internal to a leaf", pkg{path: m + "internal/flat", imports: []string{m + "layer"}}, []string{m + "internal/flat imports " + m + "layer"}},
		{"command knows everything", pkg{path: m + "cmd/peel", imports: []string{m + "fs", m + "remote", m + "cache", m + "internal/demo"}}, nil},
		{"test kit in production", pkg{path: m + "cmd/peel", imports: []string{m + "internal/testkit"}}, []string{m + "cmd/peel imports " + m + "internal/testkit"}},
		{"test kit in a test", pkg{path: m + "fs", testImports: []string{m + "internal/testkit"}}, nil},
		{"end to end knows only the binary", pkg{path: m + "test/lazy", testImports: []string{m + "internal/testkit", m + "fs"}}, []string{m + "test/lazy imports " + m + "fs in a test"}},
		{"folder without a place", pkg{path: m + "util"}, []string{m + "util: no arrow begins in this folder; add it to the design first"}},
		{"name that only begins alike", pkg{path: m + "layer", imports: []string{m + "internals"}}, []string{m + "layer imports " + m + "internals"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tc.want, violations([]pkg{tc.pkg})); d != "" {
				t.Errorf("violations (-want +got):\n%s", d)
			}
		})
	}
}

func TestSourceRulesAreChecked(t *testing.T) {
	t.Parallel()
	long := "package p\n" + strings.Repeat("//\n", maxLines)
	for _, tc := range []struct {
		name, src string
		want      []string
	}{
		{"good", "package p\n\nfunc initial() {}\n\ntype t struct{}\n\nfunc (t) init() {}\n", nil},
		{"init", "package p\n\nfunc init() {}\n", []string{"x.go: has an init function"}},
		{"too long", long, []string{"x.go: 501 lines, at most 500"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tc.want, sourceFaults("x.go", []byte(tc.src))); d != "" {
				t.Errorf("faults (-want +got):\n%s", d)
			}
		})
	}
}

func TestModule(t *testing.T) {
	t.Parallel()
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			t.Parallel()
			pkgs := list(t, goos)
			for _, v := range violations(pkgs) {
				t.Error(v)
			}
			for _, p := range pkgs {
				if !slices.Contains(p.files, "doc.go") {
					t.Errorf("%s: no doc.go", p.path)
				}
				for _, f := range p.files {
					src, err := os.ReadFile(filepath.Join(p.dir, f))
					if err != nil {
						t.Fatal(err)
					}
					for _, fault := range sourceFaults(f, src) {
						t.Errorf("%s/%s", p.path, fault)
					}
				}
			}
		})
	}
}

// list reads the module's packages as they are built for goos.
func list(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir                    string
			GoFiles, TestGoFiles, XTestGoFiles []string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		files := slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles)
		if len(files) == 0 {
			continue
		}
		pkgs = append(pkgs, pkg{
			path: p.ImportPath, dir: p.Dir, files: files,
			imports: p.Imports, testImports: slices.Concat(p.TestImports, p.XTestImports),
		})
	}
	if len(pkgs) < 2 {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	return pkgs
}

func sourceFaults(name string, src []byte) []string {
	var out []string
	if n := bytes.Count(src, []byte("\n")); n > maxLines {
		out = append(out, fmt.Sprintf("%s: %d lines, at most %d", name, n, maxLines))
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return append(out, err.Error())
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			out = append(out, name+": has an init function")
		}
	}
	return out
}
