package layer

import (
	"context"
	"sync/atomic"
)

// Fill makes all spans present. done counts the compressed bytes of those that
// are, and never exceeds the blob's size.
func (l *Layer) Fill(ctx context.Context, done *atomic.Int64) error {
	p := make([]byte, 1)
	for i := range l.x.Spans {
		sp := &l.x.Spans[i]
		if _, err := l.ReadAt(ctx, p, sp.Addr); err != nil {
			return err
		}
		done.Store(min(max(done.Load(), sp.Off+sp.CLen), l.x.Info.BlobSize))
	}
	return nil
}
