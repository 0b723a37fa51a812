package schema1

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"

	"github.com/peelfs/peel/internal/jsonlist"
)

// Media types of schema 1 (distribution's manifest-v2-1.md).
const (
	MediaType       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeSigned = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

const (
	maxDocument   = 8 << 20 // bytes, as everywhere in peel
	maxSignatures = 64
)

// IsMediaType reports whether s, which may have parameters, is a type of
// schema 1.
func IsMediaType(s string) bool {
	if plain, _, err := mime.ParseMediaType(s); err == nil {
		s = plain
	}
	return s == MediaType || s == MediaTypeSigned
}

// signature is the one member of a signature that the payload depends on.
type signature struct {
	Protected string `json:"protected"`
}

// protected is a signature's header.
type protected struct {
	FormatLength *int64  `json:"formatLength"`
	FormatTail   *string `json:"formatTail"`
}

// Payload returns what the digest of the manifest raw is over: what is signed
// if there are signatures, else raw itself. All signatures must agree. The
// error says what is wrong, and is of no class.
func Payload(raw []byte) ([]byte, error) {
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%d bytes, more than %d", len(raw), maxDocument)
	}
	var doc struct {
		Signatures json.RawMessage `json:"signatures"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	signatures, err := jsonlist.Decode[signature](doc.Signatures, maxSignatures)
	if err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	payload := raw
	for i, s := range signatures {
		signed, err := s.payload(raw)
		if err != nil {
			return nil, fmt.Errorf("signature %d of %d: %w", i+1, len(signatures), err)
		}
		if i > 0 && !bytes.Equal(payload, signed) {
			return nil, errors.New("its signatures are over different payloads")
		}
		payload = signed
	}
	return payload, nil
}

// payload is what s signs of raw.
func (s signature) payload(raw []byte) ([]byte, error) {
	header, err := base64.RawURLEncoding.DecodeString(s.Protected)
	if err != nil {
		return nil, fmt.Errorf("protected: %w", err)
	}
	var p protected
	if err := json.Unmarshal(header, &p); err != nil {
		return nil, fmt.Errorf("protected: %w", err)
	}
	if p.FormatLength == nil || p.FormatTail == nil {
		return nil, errors.New("protected: no formatLength or no formatTail")
	}
	if *p.FormatLength < 0 || *p.FormatLength > int64(len(raw)) {
		return nil, fmt.Errorf("protected: formatLength %d of %d bytes", *p.FormatLength, len(raw))
	}
	tail, err := base64.RawURLEncoding.DecodeString(*p.FormatTail)
	if err != nil {
		return nil, fmt.Errorf("protected: formatTail: %w", err)
	}
	return append(bytes.Clone(raw[:*p.FormatLength]), tail...), nil
}
