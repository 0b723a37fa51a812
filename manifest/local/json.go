package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// list decodes a JSON array of at most limit elements; null is an empty one.
// The caller knows that raw is valid. An element costs two bytes of input and may cost hundreds of memory, hence
// one by one.
func list[T any](raw json.RawMessage, limit int) ([]T, error) {
	if isNull(raw) {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("not a list")
	}
	var all []T
	for dec.More() {
		if len(all) == limit {
			return nil, fmt.Errorf("more than %d elements", limit)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// members decodes a JSON object of at most limit members, in their order; null
// is an empty one. The caller knows that raw is valid.
func members[T any](raw json.RawMessage, limit int, use func(name string, value T) error) error {
	if isNull(raw) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not an object")
	}
	for n := 0; dec.More(); n++ {
		if n == limit {
			return fmt.Errorf("more than %d members", limit)
		}
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		var v T
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", quote(name), err)
		}
		if err := use(name, v); err != nil {
			return fmt.Errorf("%s: %w", quote(name), err)
		}
	}
	return nil
}

func isNull(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}
