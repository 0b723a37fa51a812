package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/peelfs/peel/internal/jsonlist"
)

// members decodes a JSON object of at most limit members, in their order; null
// is an empty one. The caller knows that raw is valid.
func members[T any](raw json.RawMessage, limit int, use func(name string, value T) error) error {
	if jsonlist.IsNull(raw) {
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
