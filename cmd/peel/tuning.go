package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
)

// tuning are the flags of a mount that change when bytes are fetched, never
// which ones are shown.
type tuning struct {
	prefetch   prefetchFlag
	noRecord   bool
	entrypoint string
	fill       bool
	fillRate   sizeFlag // bytes a second; 0: as fast as it goes
	trace      string
	memory     sizeFlag // bytes; 0: the default
}

func (t *tuning) add(f *pflag.FlagSet) {
	f.Var(&t.prefetch, "prefetch", "what to fetch before it is read: `auto`, what earlier runs and neighbours tell, or none")
	f.BoolVar(&t.noRecord, "no-record", false, "do not remember what is read first, for later mounts of the image")
	f.StringVar(&t.entrypoint, "entrypoint", "", "`name` of what will run; what is read first is remembered for each")
	f.BoolVar(&t.fill, "fill", false, "fetch the rest of the image, too, while nobody waits")
	f.Var(&t.fillRate, "fill-rate", "`bytes` a second that --fill may take (default as fast as it goes)")
	f.StringVar(&t.trace, "trace", "", "`file` to write a line to for each read(2) that comes from the kernel")
	f.Var(&t.memory, "memory", "`bytes` of memory for what is on its way (default 64MiB)")
}

// args are the flags for a server.
func (t *tuning) args() []string {
	args := []string{"--prefetch=" + t.prefetch.String()}
	for _, f := range []struct {
		name string
		set  bool
	}{{"no-record", t.noRecord}, {"fill", t.fill}} {
		if f.set {
			args = append(args, "--"+f.name)
		}
	}
	for _, f := range []struct{ name, value string }{
		{"entrypoint", t.entrypoint}, {"trace", t.trace}, {"fill-rate", t.fillRate.String()}, {"memory", t.memory.String()},
	} {
		if f.value != "" {
			args = append(args, "--"+f.name+"="+f.value)
		}
	}
	return args
}

func (t *tuning) traffic() *layer.Traffic {
	return layer.NewTraffic(layer.TrafficOptions{Memory: int64(t.memory), NoGuess: t.prefetch == prefetchNone})
}

// begin starts what a mount does besides answering. stop ends it, and must be
// called before the image is closed.
func (o *mountOptions) begin(ctx context.Context, s *session) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var mu sync.Mutex // guards stops
	var stops []func() error
	start := func(m *fs.Image) {
		whole := &session{image: m, from: s.from, cache: s.cache, traffic: s.traffic, filling: s.filling, profile: s.profile}
		mu.Lock()
		defer mu.Unlock()
		stops = append(stops, o.beginProfile(ctx, whole), o.beginFill(ctx, whole))
	}
	var waiting sync.WaitGroup
	if s.early == nil {
		start(s.image)
	} else {
		waiting.Go(func() { // ends with ctx
			if m, err := s.early.Wait(ctx); err == nil {
				start(m)
			}
		})
	}
	return func() error {
		cancel()
		waiting.Wait()
		var errs []error
		for _, stop := range stops {
			errs = append(errs, stop())
		}
		return errors.Join(errs...)
	}
}

// prefetchFlag is whether to fetch what nobody has asked for.
type prefetchFlag uint8

const (
	prefetchAuto prefetchFlag = iota
	prefetchNone
)

func (p *prefetchFlag) String() string { return [...]string{"auto", "none"}[*p] }
func (p *prefetchFlag) Type() string   { return "when" }

func (p *prefetchFlag) Set(s string) error {
	switch s {
	case "auto":
		*p = prefetchAuto
	case "none":
		*p = prefetchNone
	default:
		return fmt.Errorf("%q is neither auto nor none", s)
	}
	return nil
}

// sizeFlag is a number of bytes, "64MiB" or "10MB" say; 0 if it is not set.
type sizeFlag int64

func (s *sizeFlag) Type() string { return "bytes" }

func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return fmt.Sprint(int64(*s))
}

func (s *sizeFlag) Set(text string) error {
	parse := units.FromHumanSize
	if strings.Contains(text, "i") {
		parse = units.RAMInBytes
	}
	n, err := parse(text)
	if err != nil || n <= 0 {
		return fmt.Errorf("%q is no number of bytes like 64MiB or 10MB", text)
	}
	*s = sizeFlag(n)
	return nil
}
