package local

import "context"

// Names are what the image is called in its place, as Entry has them.
func (s *Source) Names(ctx context.Context) ([]string, error) {
	entries, err := s.from.entries(ctx)
	if err != nil {
		return nil, s.fail(err)
	}
	for _, e := range entries {
		if e.Desc.Digest == s.desc.Digest {
			return e.Names, nil
		}
	}
	return nil, nil
}
