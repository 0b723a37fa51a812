package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
	"github.com/peelfs/peel/remote"
)

// Exit codes. They are documented and never change.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitUnauthorized
	exitVerification
	exitNetwork

	exitInterrupted = 130 // as shells count a death by SIGINT
)

// errUsage: the command line is wrong.
var errUsage = errors.New("wrong usage")

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ error }

func (u *usageError) Unwrap() []error { return []error{u.error, errUsage} }

// remedied is an error with what to do about it.
type remedied struct {
	error
	remedy string
}

func (r *remedied) Unwrap() error { return r.error }

func withRemedy(err error, format string, args ...any) error {
	return &remedied{err, fmt.Sprintf(format, args...)}
}

// classed is an error of a class of errdefs whose text it does not repeat.
type classed struct {
	error
	class error
}

func (c *classed) Unwrap() []error { return []error{c.error, c.class} }

// failure is what another process of this program ended with.
type failure struct {
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
	Code    int    `json:"code"`
}

func (f *failure) Error() string { return f.Message }

// explain makes of err what is told to people and shells.
func explain(ctx context.Context, err error) *failure {
	var told *failure
	if errors.As(err, &told) {
		return told
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return &failure{Message: "interrupted", Code: exitInterrupted}
	}
	f := &failure{Message: oneLine(err.Error()), Code: exitCode(err)}
	var r *remedied
	switch {
	case errors.As(err, &r):
		f.Remedy = r.remedy
	case f.Code == exitVerification:
		f.Remedy = askRegistry
	case errors.Is(err, cache.ErrFull):
		f.Remedy = "free some space, or choose another folder with --cache or PEEL_CACHE"
	case errors.Is(err, syscall.ENOSPC):
		f.Remedy = "free some space there, or name another place; the cache folder's is --cache"
	}
	return f
}

// askRegistry is the remedy for wrong bytes of a registry.
const askRegistry = "the bytes are not the ones that the image names; try again, and ask whoever runs the registry if that does not help"

// blame adds to err, if it is about wrong bytes, who can help: that depends on
// where the image is.
func blame(err error, ref manifest.Reference) error {
	remedy := askRegistry
	if ref.Transport() != "" {
		remedy = "what is in " + ref.Location() + " is damaged, or was made wrong; save or copy the image there anew"
	}
	var told *failure
	if errors.As(err, &told) {
		if told.Remedy != askRegistry {
			return err
		}
		other := *told
		other.Remedy = remedy
		return &other
	}
	var has *remedied
	if exitCode(err) != exitVerification || errors.As(err, &has) {
		return err
	}
	return withRemedy(err, "%s", remedy)
}

// exitCode maps the class of err. An error of several classes has the gravest.
func exitCode(err error) int {
	// Not net.Error: every syscall.Errno is one.
	var network *net.OpError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage), errors.Is(err, manifest.ErrReference),
		errors.Is(err, manifest.ErrPlatform), errors.Is(err, remote.ErrUsage),
		errors.Is(err, local.ErrAmbiguous):
		return exitUsage
	case errdefs.IsDataLoss(err):
		return exitVerification
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return exitUnauthorized
	case errdefs.IsNotFound(err):
		return exitNotFound
	case errdefs.IsUnavailable(err), errdefs.IsDeadlineExceeded(err), errors.As(err, &network):
		return exitNetwork
	}
	return exitFailed
}

// streams are where a run reads from and writes to.
type streams struct {
	in       io.Reader // nil: nothing
	out, err io.Writer
}

// report tells what err means and returns the exit code.
func (s streams) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	f := explain(ctx, err)
	fmt.Fprintf(s.err, "peel: %s\n", f.Message)
	if f.Remedy != "" {
		fmt.Fprintf(s.err, "      %s\n", f.Remedy)
	}
	return f.Code
}

// oneLine joins the lines of joined errors and takes out what a terminal would
// obey: messages repeat names that came from outside.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
