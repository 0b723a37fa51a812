package tree

import (
	"fmt"
	"testing"

	"github.com/peelfs/peel/layer"
)

// bigLayers are a base of n names in directories of 50, an upper layer that
// adds to, replaces and hides a tenth of them, and one on top.
func bigLayers(tb testing.TB, n int) []*layer.Index {
	tb.Helper()
	var base, upper, top []layer.Header
	for i := range n {
		d := fmt.Sprintf("usr/share/%02d/package-%d", i/50%40, i/50)
		switch {
		case i%50 == 0:
			base = append(base, dir(d, 0o755))
		case i%10 == 1:
			base = append(base, file(fmt.Sprintf("%s/file-%d", d, i), int64(i), 100))
			upper = append(upper, file(fmt.Sprintf("%s/file-%d", d, i), int64(i), 100))
			top = append(top, hardlink(fmt.Sprintf("links/%d", i), fmt.Sprintf("%s/file-%d", d, i)))
		case i%10 == 2:
			base = append(base, file(fmt.Sprintf("%s/file-%d", d, i), int64(i), 100))
			upper = append(upper, whiteout(d, fmt.Sprintf("file-%d", i)))
		default:
			base = append(base, file(fmt.Sprintf("%s/file-%d", d, i), int64(i), 100))
		}
	}
	return indexes(tb, base, upper, top)
}

func bigTree(tb testing.TB, n int) *Tree {
	tb.Helper()
	t, err := Merge(bigLayers(tb, n))
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

const benchNames = 200_000

func BenchmarkMerge(b *testing.B) {
	layers := bigLayers(b, benchNames)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Merge(layers); err != nil {
			b.Fatal(err)
		}
	}
}

// The two upper layers come to lie behind a symlink of the base.
func BenchmarkMergeBehindSymlink(b *testing.B) {
	layers := append(indexes(b, []layer.Header{symlink("usr/share", "../data"), symlink("links", "usr")}), bigLayers(b, benchNames)...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Merge(layers); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	t := bigTree(b, benchNames)
	for b.Loop() {
		b.SetBytes(int64(len(t.Encode())))
	}
}

func BenchmarkDecode(b *testing.B) {
	data := bigTree(b, benchNames).Encode()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	t := bigTree(b, benchNames)
	dir := t.mustWalk("links")
	names := make([]string, 0, 1024)
	for _, e := range t.Children(dir)[:1024] {
		names = append(names, t.Name(e))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := t.Lookup(dir, names[i%len(names)]); !ok {
			b.Fatal(names[i%len(names)])
		}
	}
}

func BenchmarkReadFile(b *testing.B) {
	t := everything(b)
	row, p, ctx := t.mustWalk("a"), make([]byte, 64), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := t.ReadFile(ctx, pattern{}, row, p, 10); err != nil {
			b.Fatal(err)
		}
	}
}
