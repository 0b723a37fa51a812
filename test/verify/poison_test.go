//go:build linux

package verify

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
)

const tocAnnotation = "containerd.io/snapshot/stargz/toc.digest"

// An image can claim any digest in its annotations. What it leaves in a cache
// must not show in another image, whatever it claimed.
func TestOneImageNeverShowsInAnother(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	plain := testkit.Encode(t, testkit.Gzip, testkit.File("f", []byte("good")))
	lazy := testkit.Encode(t, testkit.Stargz, testkit.File("f", []byte("good")))
	for name, victim := range map[string]testkit.Layer{"blob": plain, "toc": lazy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim := victim.Desc.Digest.String()
			if toc, ok := victim.Desc.Annotations[tocAnnotation]; ok {
				claim = toc
			}
			evil := testkit.Encode(t, testkit.Gzip, testkit.File("f", []byte("evil")))
			evil.Desc.Annotations = map[string]string{tocAnnotation: claim}
			reg.Publish(t, name+"/evil", "1", evil)
			reg.Publish(t, name+"/victim", "1", victim)

			p := testkit.NewPeel(t)
			if got := p.Must("cat", reg.Ref(name+"/evil", "1")+":/f").Stdout; got != "evil" {
				t.Fatalf("the evil image shows %q", got)
			}
			if got := p.Must("cat", reg.Ref(name+"/victim", "1")+":/f").Stdout; got != "good" {
				t.Errorf("after it the good image shows %q", got)
			}
		})
	}
}

// A layer that another image has proved is no proof for a config that says
// something else of it.
func TestProvedLayerAgainstAnotherConfig(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Gzip, testkit.File("f", []byte("good")))
	reg.Publish(t, "honest", "1", l)
	l.DiffID = digest.FromString("something else")
	reg.Publish(t, "liar", "1", l)

	p := testkit.NewPeel(t)
	p.Must("cat", reg.Ref("honest", "1")+":/f")
	if r := p.Run("cat", reg.Ref("liar", "1")+":/f"); r.Code != 5 || r.Stdout != "" {
		t.Errorf("exit code %d, output %q, %s", r.Code, r.Stdout, r.Stderr)
	}
}
