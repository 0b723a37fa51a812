package schema1

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// header is a signature over the first n bytes and tail.
func header(n int, tail string) string {
	tail = base64.RawURLEncoding.EncodeToString([]byte(tail))
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"formatLength":%d,"formatTail":%q}`, n, tail))
}

func TestPayload(t *testing.T) {
	t.Parallel()
	signature := func(n int, tail string) string { return `{"protected":"` + header(n, tail) + `"}` }
	raw := func(protected string) string { return `{"signatures":[{"protected":"` + protected + `"}]}` }
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for _, tc := range []struct{ name, in, want, err string }{
		{"unsigned", `{"name":"x"}`, `{"name":"x"}`, ""},
		{"no signatures", `{"name":"x","signatures":[]}`, `{"name":"x","signatures":[]}`, ""},
		{"null", `{"signatures":null}`, `{"signatures":null}`, ""},
		{"signed", `{"a":1,"signatures":[` + signature(6, "\n}") + `]}`, "{\"a\":1\n}", ""},
		{"signed twice", `{"a":1,"signatures":[` + signature(6, "}") + "," + signature(5, "1}") + `]}`, `{"a":1}`, ""},
		{"nothing signed", `{"a":1,"signatures":[` + signature(0, "") + `]}`, "", ""},
		{"signatures disagree", `{"a":1,"signatures":[` + signature(6, "}") + "," + signature(6, "]") + `]}`, "", "different payloads"},
		{"not JSON", "<html>", "", "invalid character"},
		{"not an object", "[]", "", "cannot unmarshal"},
		{"too large", strings.Repeat(" ", maxDocument+1), "", "more than 8388608"},
		{"signatures are no list", `{"signatures":{}}`, "", "signatures: not a list"},
		{"a signature is none", `{"signatures":[1]}`, "", "signatures: json"},
		{"too many", `{"signatures":[{}` + strings.Repeat(",{}", maxSignatures) + `]}`, "", "more than 64"},
		{"no header", `{"signatures":[{}]}`, "", "signature 1 of 1: protected"},
		{"header is not base64", raw("???"), "", "illegal base64"},
		{"header is padded", raw("e30="), "", "illegal base64"},
		{"header is not JSON", raw(encode("x")), "", "invalid character"},
		{"empty header", raw(encode("{}")), "", "no formatLength"},
		{"no tail", raw(encode(`{"formatLength":1}`)), "", "no formatTail"},
		{"no length", raw(encode(`{"formatTail":"fQ"}`)), "", "no formatLength"},
		{"negative length", raw(header(-1, "}")), "", "formatLength -1 of"},
		{"length beyond the end", raw(header(1<<20, "}")), "", "formatLength 1048576 of"},
		{"fraction", raw(encode(`{"formatLength":1.5,"formatTail":"fQ"}`)), "", "cannot unmarshal"},
		{"tail is not base64", raw(encode(`{"formatLength":1,"formatTail":"?"}`)), "", "formatTail: illegal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Payload([]byte(tc.in))
			if tc.err == "" && (err != nil || string(got) != tc.want) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
			if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got %q, %v, want an error that holds %q", got, err, tc.err)
			}
		})
	}
}

// TestVector reads a manifest that skopeo signed: its payload ends where the
// signatures begin.
func TestVector(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../../shared/vectors/tricky-schema1/manifest.json")
	if errors.Is(err, os.ErrNotExist) {
		t.Log("the shared vectors are absent")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	payload, err := Payload(raw)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, _, ok := bytes.Cut(raw, []byte(`,"signatures"`))
	if !ok || string(payload) != string(unsigned)+"}" {
		t.Errorf("got %s", payload)
	}
	// As skopeo manifest-digest has it.
	if got := digest.FromBytes(payload); got != "sha256:dcba0287ad6bb2ea9bf9c3a77d2b7bcc5dba40bfe83039887fbc2159f60bbe9f" {
		t.Errorf("digest %s", got)
	}
}

func TestIsMediaType(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		MediaType: true, MediaTypeSigned: true, MediaTypeSigned + "; charset=utf-8": true,
		"": false, "application/json": false, MediaType + "x": false,
	} {
		if IsMediaType(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"a":1,"signatures":[{"protected":"`+header(6, "}")+`"}]}`), "")
	f.Add([]byte(`{"a":1`), `{"formatLength":6,"formatTail":"fQ"}`)
	f.Fuzz(func(t *testing.T, raw []byte, protected string) {
		if protected != "" { // past the first check
			raw = fmt.Appendf(raw, `,"signatures":[{"protected":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(protected)))
		}
		before := bytes.Clone(raw)
		payload, err := Payload(raw)
		if !bytes.Equal(before, raw) {
			t.Error("the document was changed")
		}
		if err != nil && payload != nil || len(payload) > 2*len(raw) {
			t.Errorf("%d bytes of %d, %v", len(payload), len(raw), err)
		}
	})
}
