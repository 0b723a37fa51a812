package imports

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/peelfs/peel"

// arrows lists what a folder of the module may import of the module, besides
// its own sub-folders. A folder is the first entry that is the package's path
// or a parent of it; "internal" stands for every package below internal/
// except the test kit.
var arrows = []struct {
	from string
	to   []string
}{
	{"manifest", []string{"internal"}},
	{"layer", []string{"internal"}},
	{"remote", []string{"internal"}},
	{"cache", []string{"internal"}},
	{"fs/tree", []string{"layer", "internal"}},
	{"fs", []string{"manifest", "layer", "fs/tree", "internal"}},
	{"snapshot", []string{"manifest", "fs", "internal"}},
	{"web", []string{"manifest", "fs", "internal"}},
	{"internal/testkit", []string{"layer/convert", "internal"}}, // images in the format that peel writes
	{"internal", nil},
	{"cmd", []string{"manifest", "layer", "remote", "cache", "fs", "snapshot", "web", "internal"}},
	{"test", nil},
}

// A pkg is what the checks need to know of one package of the module.
type pkg struct {
	path        string
	dir         string
	files       []string
	imports     []string
	testImports []string
}

// violations reports every import that goes against the table, in words.
func violations(pkgs []pkg) []string {
	var out []string
	for _, p := range pkgs {
		from, to, ok := folder(p.path)
		if !ok {
			out = append(out, fmt.Sprintf("%s: no arrow begins in this folder; add it to the design first", p.path))
			continue
		}
		for _, imp := range p.imports {
			if !allowed(from, to, imp, from == "test") {
				out = append(out, fmt.Sprintf("%s imports %s", p.path, imp))
			}
		}
		for _, imp := range p.testImports {
			if !allowed(from, to, imp, true) {
				out = append(out, fmt.Sprintf("%s imports %s in a test", p.path, imp))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func folder(path string) (from string, to []string, ok bool) {
	rel := strings.TrimPrefix(path, module+"/")
	for _, a := range arrows {
		if within(rel, a.from) {
			return a.from, a.to, true
		}
	}
	return "", nil, false
}

func allowed(from string, to []string, imp string, testing bool) bool {
	rel, ours := strings.CutPrefix(imp, module+"/")
	switch {
	case !ours:
		return true
	case within(rel, "internal/testkit"):
		return testing || within(from, "internal")
	case within(rel, from):
		return true
	}
	return slices.ContainsFunc(to, func(f string) bool { return within(rel, f) })
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}
