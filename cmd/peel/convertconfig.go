package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

// replaceDiffIDs puts to in the place of the diff IDs from in an image's
// configuration, of which every other byte stays as it is.
func replaceDiffIDs(raw []byte, from, to []digest.Digest) ([]byte, error) {
	if slices.Equal(from, to) {
		return raw, nil
	}
	rootfs, err := member(raw, span{0, len(raw)}, "rootfs")
	if err != nil {
		return nil, err
	}
	ids, err := member(raw, rootfs, "diff_ids")
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	out := slices.Concat(raw[:ids.start], list, raw[ids.end:])
	// Names that differ in case, or come twice, mean different things to
	// different readers.
	var check struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(out, &check); err != nil || !slices.Equal(check.RootFS.DiffIDs, to) {
		return nil, fmt.Errorf("%w: its diff_ids are ambiguous", manifest.ErrMalformed)
	}
	return out, nil
}

// span is where a JSON value lies in a text.
type span struct{ start, end int }

// member returns where the value of a member of the object at s lies.
func member(raw []byte, s span, name string) (span, error) {
	dec := json.NewDecoder(bytes.NewReader(raw[s.start:s.end]))
	found := span{}
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return found, fmt.Errorf("%w: no object around %s", manifest.ErrMalformed, name)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return found, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return found, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
		}
		if key == name {
			end := s.start + int(dec.InputOffset())
			found = span{end - len(value), end}
		}
	}
	if found.end == 0 {
		return found, fmt.Errorf("%w: no %s", manifest.ErrMalformed, name)
	}
	return found, nil
}
