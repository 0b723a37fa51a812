package mention

import (
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var tree = []string{
	"usr/bin/python3.11",
	"usr/lib/x86_64-linux-gnu/libm.so.6",
	"usr/lib/x86_64-linux-gnu/libblas.so.3",
	"usr/lib/python3.11/enum.py",
	"usr/lib/python3.11/__pycache__/enum.cpython-311.pyc",
	"usr/lib/python3.11/__pycache__/types.cpython-311.pyc",
	"usr/lib/python3.11/__pycache__/core.cpython-311.pyc",
	"usr/lib/python3/dist-packages/numpy/__pycache__/__init__.cpython-311.pyc",
	"usr/lib/python3/dist-packages/numpy/core/__pycache__/__init__.cpython-311.pyc",
	"usr/lib/python3/dist-packages/numpy/core/__pycache__/numeric.cpython-311.pyc",
	"usr/lib/python3/dist-packages/numpy/core/__pycache__/overrides.cpython-311.pyc",
	"usr/lib/python3/dist-packages/numpy/core/_umath.cpython-311-x86_64-linux-gnu.so",
	"usr/lib/python3/dist-packages/numpy/linalg/__pycache__/numeric.cpython-311.pyc",
	"usr/share/gems/a/lib/active/core_ext/blank.rb",
	"usr/share/gems/a/lib/active/core_ext/array.rb",
	"usr/share/gems/b/lib/other/array.rb",
	"usr/share/gems/a/lib/active.rb",
	"usr/share/perl/File/Spec.pm",
	"usr/share/perl/Spec.pm",
	"etc/nginx/nginx.conf",
	"etc/nginx/mime.types",
}

func dictionary() *Dictionary {
	b := NewBuilder()
	for i, p := range tree {
		b.Add(uint64(i), path.Dir(p), path.Base(p))
	}
	return b.Build()
}

func TestFind(t *testing.T) {
	t.Parallel()
	const np = "usr/lib/python3/dist-packages/numpy/"
	for _, tc := range []struct {
		name, of, text string
		want           map[string]How
	}{
		{"a library that an ELF file needs", "usr/bin/python3.11", "\x7fELF\x00libm.so.6\x00enum\x00libblas.so.3\x00", map[string]How{
			"usr/lib/x86_64-linux-gnu/libm.so.6": Needed, "usr/lib/x86_64-linux-gnu/libblas.so.3": Needed,
		}},
		{"nothing but libraries, by an ELF file", "usr/bin/python3.11", "\x7fELF\x00types enum.py", nil},
		{"a module beside it, of its own kind", "usr/lib/python3.11/__pycache__/types.cpython-311.pyc", "\xda\x04enum)", map[string]How{
			"usr/lib/python3.11/__pycache__/enum.cpython-311.pyc": Beside,
		}},
		{"with the next object's type behind it", "usr/lib/python3.11/__pycache__/types.cpython-311.pyc", "\xda\x04enumr\x05", map[string]How{
			"usr/lib/python3.11/__pycache__/enum.cpython-311.pyc": Beside,
		}},
		{"a dotted name, and the packages on the way", "usr/lib/python3.11/__pycache__/types.cpython-311.pyc", "numpy.core.numeric", map[string]How{
			np + "__pycache__/__init__.cpython-311.pyc":      Only,
			np + "core/__pycache__/__init__.cpython-311.pyc": Qualified,
			np + "core/__pycache__/numeric.cpython-311.pyc":  Qualified,
		}},
		{"the only one so called of a tree", np + "linalg/__pycache__/numeric.cpython-311.pyc", "overrides", map[string]How{
			np + "core/__pycache__/overrides.cpython-311.pyc": Own,
		}},
		{"an extension module", np + "core/__pycache__/overrides.cpython-311.pyc", "(_umath)", map[string]How{
			np + "core/_umath.cpython-311-x86_64-linux-gnu.so": Needed,
		}},
		{"not what it was made of", "usr/lib/python3.11/__pycache__/enum.cpython-311.pyc", "/usr/lib/python3.11/enum.py", nil},
		{"required by a path", "usr/share/gems/a/lib/active.rb", "require 'active/core_ext/array'\nrequire \"active/core_ext/blank\"", map[string]How{
			"usr/share/gems/a/lib/active/core_ext/array.rb": Qualified, "usr/share/gems/a/lib/active/core_ext/blank.rb": Qualified,
		}},
		{"used by a name with colons", "usr/share/perl/Other.pm", "use File::Spec;", map[string]How{"usr/share/perl/File/Spec.pm": Qualified}},
		{"included by its whole name", "etc/nginx/nginx.conf", "include /etc/nginx/mime.types;", map[string]How{"etc/nginx/mime.types": Qualified}},
		{"a word of another kind of file", "etc/nginx/nginx.conf", "numeric", nil},
		{"an empty text", "etc/nginx/nginx.conf", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got map[string]How
			for _, m := range dictionary().Find(Text{In: path.Dir(tc.of), Name: path.Base(tc.of), Bytes: []byte(tc.text)}) {
				if got == nil {
					got = make(map[string]How)
				}
				got[tree[m.ID]] = m.How
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// What mentions very many files is a list of what there is.
func TestLists(t *testing.T) {
	t.Parallel()
	b, text := NewBuilder(), new(strings.Builder)
	for i := range 2 * maxMeant {
		name := "word" + strings.Repeat("x", i)
		b.Add(uint64(i), "dir", name+".rb")
		text.WriteString(name + "\n")
	}
	for _, m := range b.Build().Find(Text{In: "dir", Name: "list.rb", Bytes: []byte(text.String())}) {
		if m.How != Listed {
			t.Fatalf("file %d is mentioned in way %d", m.ID, m.How)
		}
	}
}

func FuzzFind(f *testing.F) {
	d := dictionary()
	f.Add("usr/bin", "python3.11", []byte("\x7fELF\x00libm.so.6\x00"))
	f.Add("usr/lib/python3.11/__pycache__", "types.cpython-311.pyc", []byte("numpy.core.numeric\xda\x04enumr"))
	f.Fuzz(func(t *testing.T, in, name string, text []byte) {
		seen := make(map[uint64]bool)
		last := Needed
		for _, m := range d.Find(Text{In: in, Name: name, Bytes: text}) {
			if m.ID >= uint64(len(tree)) || seen[m.ID] || m.How > last {
				t.Fatalf("mention %v after way %d", m, last)
			}
			seen[m.ID], last = true, m.How
		}
	})
}

func BenchmarkFind(b *testing.B) {
	d := dictionary()
	text := Text{In: "usr/lib/python3.11", Name: "x.py", Bytes: []byte(strings.Repeat("import numpy.core.numeric as n; def f(a, b): return a + b\n", 2000))}
	b.SetBytes(int64(len(text.Bytes)))
	for b.Loop() {
		d.Find(text)
	}
}
