package priority_test

import (
	"context"
	"testing"

	"github.com/peelfs/peel/internal/priority"
)

func TestClass(t *testing.T) {
	t.Parallel()
	plain := t.Context()
	priority.Raise(plain, priority.Demand)
	if got := priority.Of(plain); got != priority.Demand {
		t.Errorf("a plain context has class %d", got)
	}
	if priority.Changed(plain) != nil {
		t.Error("a plain context may change")
	}
	fill := priority.With(plain, priority.Fill)
	child, cancel := context.WithCancel(context.WithoutCancel(fill))
	defer cancel()
	changed := priority.Changed(child)
	for _, step := range []struct{ raise, want priority.Class }{
		{priority.Fill, priority.Fill},
		{priority.Prefetch, priority.Prefetch},
		{priority.Fill, priority.Prefetch},
		{priority.Demand, priority.Demand},
	} {
		priority.Raise(fill, step.raise)
		if got := priority.Of(child); got != step.want {
			t.Errorf("raised to %d: %d, want %d", step.raise, got, step.want)
		}
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if got := priority.Of(priority.With(child, priority.Fill)); got != priority.Fill {
		t.Errorf("work of its own has class %d", got)
	}
}
