//go:build linux

package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// The content of the image: it does not compress, so that it stands in the
// blob of every form as it is, and can be found there.
var (
	victim = testkit.Noise(11, 300_000)
	other  = testkit.Noise(12, 300_000)
)

// A fixture is an image of one layer behind a proxy that nobody has asked yet.
type fixture struct {
	form  testkit.Form
	layer testkit.Layer
	desc  ocispec.Descriptor
	proxy *testkit.Proxy
	p     *testkit.Peel
	ref   string
}

func prepare(t *testing.T, f testkit.Form) fixture {
	t.Helper()
	x := fixture{form: f, layer: testkit.Encode(t, f, testkit.File("other", other), testkit.File("victim", victim))}
	reg := testkit.NewRegistry(t)
	x.desc = reg.Publish(t, "very/fy", "v1", x.layer)
	x.proxy = testkit.NewProxy(t, reg.Host())
	x.p = testkit.NewPeel(t)
	x.ref = x.proxy.Ref("very/fy", "v1")
	return x
}

// spoil serves the layer's blob with the byte at off flipped.
func (x fixture) spoil(off int) {
	blob := bytes.Clone(x.layer.Blob)
	blob[off] ^= 0x20
	x.serve(blob)
}

func (x fixture) serve(blob []byte) {
	x.proxy.Inject(testkit.Fault{Path: x.layer.Desc.Digest.String(), Do: testkit.Serve(blob, nil)})
}

// inVictim is where the middle of the file lies in the blob.
func (x fixture) inVictim(t *testing.T) int {
	t.Helper()
	mid := len(victim) / 2
	at := bytes.Index(x.layer.Blob, victim[mid:mid+24])
	if at < 0 {
		t.Fatalf("%s: the file's bytes are not in the blob", x.form)
	}
	return at
}

// toc is the range of the table of contents in the blob, compressed.
func (x fixture) toc(t *testing.T) (off, n int) {
	t.Helper()
	for name, value := range x.layer.Desc.Annotations {
		if strings.HasSuffix(name, "manifest-position") {
			if _, err := fmt.Sscanf(value, "%d:%d", &off, &n); err != nil {
				t.Fatal(err)
			}
			return off, n
		}
	}
	blob := x.layer.Blob
	size := estargz.FooterSize
	if x.form == testkit.StargzLegacy {
		size = 47
	}
	digits := regexp.MustCompile(`([0-9a-f]{16})STARGZ`).FindSubmatch(blob[len(blob)-size:])
	if digits == nil {
		t.Fatalf("%s: no footer", x.form)
	}
	at, err := strconv.ParseInt(string(digits[1]), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(at), len(blob) - size - int(at)
}

// works checks that the image is as it should be, with nothing broken before
// it any more.
func (x fixture) works(t *testing.T) {
	t.Helper()
	x.proxy.Heal()
	root := x.p.Mount(x.ref)
	for name, want := range map[string][]byte{"victim": victim, "other": other} {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, nothing broken any more: %s: %d bytes, %v; right: %v", x.form, name, len(got), err, bytes.Equal(got, want))
		}
	}
	x.p.Umount(root)
}

// names checks that an error's text names things.
func names(t *testing.T, text string, things ...string) {
	t.Helper()
	for _, thing := range things {
		if !strings.Contains(text, thing) {
			t.Errorf("does not name %q:\n%s", thing, text)
		}
	}
}

// digests checks that text has at least n different digests in one line.
func digests(t *testing.T, text string, n int) {
	t.Helper()
	for line := range strings.SplitSeq(text, "\n") {
		seen := map[string]bool{}
		for _, d := range regexp.MustCompile(`sha256:[0-9a-f]{12,64}`).FindAllString(line, -1) {
			seen[d] = true
		}
		if len(seen) >= n {
			return
		}
	}
	t.Errorf("no line names %d digests:\n%s", n, text)
}

// skippable is a zstd frame of n bytes in all that decoders pass over.
func skippable(n int) []byte {
	b := make([]byte, n)
	binary.LittleEndian.PutUint32(b, 0x184d2a50)
	binary.LittleEndian.PutUint32(b[4:], uint32(n-8))
	return b
}
