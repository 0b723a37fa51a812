package jsonlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// IsNull reports whether a member is missing or null.
func IsNull(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

// Decode decodes an array of at most limit elements; null is an empty one. The
// caller knows that raw is valid JSON. The error is of no class.
func Decode[T any](raw json.RawMessage, limit int) ([]T, error) {
	if IsNull(raw) {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("not a list")
	}
	var list []T
	for dec.More() {
		if len(list) == limit {
			return nil, fmt.Errorf("more than %d elements", limit)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
