package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
	"github.com/peelfs/peel/remote"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	_, badReference := manifest.ParseReference("")
	_, badPlatform := manifest.ParsePlatform("///")
	for _, tc := range []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, exitOK},
		{"any", errors.New("x"), exitFailed},
		{"usage", usagef("x"), exitUsage},
		{"usage with remedy", withRemedy(usagef("x"), "y"), exitUsage},
		{"reference", badReference, exitUsage},
		{"platform", badPlatform, exitUsage},
		{"hosts folder", remote.ErrUsage, exitUsage},
		{"no word on which of several images", local.ErrAmbiguous, exitUsage},
		{"hostile layer is not the user's fault", layer.ErrMalformed, exitFailed},
		{"unknown image", remote.ErrNotFound, exitNotFound},
		{"other platforms only", manifest.ErrNoPlatform, exitNotFound},
		{"unknown path", fmt.Errorf("/x: %w", tree.ErrNotExist), exitNotFound},
		{"missing file of this machine", fs.ErrNotExist, exitFailed},
		{"unknown mount", &classed{errors.New("x"), errdefs.ErrNotFound}, exitNotFound},
		{"login", remote.ErrLogin, exitUnauthorized},
		{"denied", remote.ErrDenied, exitUnauthorized},
		{"wrong bytes", layer.ErrVerify, exitVerification},
		{"wrong document", manifest.ErrVerify, exitVerification},
		{"wrong length", remote.ErrVerify, exitVerification},
		{"wrong bytes from a dead registry", errors.Join(remote.ErrUnreachable, layer.ErrVerify), exitVerification},
		{"unreachable", remote.ErrUnreachable, exitNetwork},
		{"deadline", context.DeadlineExceeded, exitNetwork},
		{"connection", &net.OpError{Op: "dial", Err: errors.New("refused")}, exitNetwork},
		{"errno", &fs.PathError{Err: syscall.ENOTDIR}, exitFailed},
		{"no FUSE", errdefs.ErrFailedPrecondition, exitFailed},
		{"full disk", errdefs.ErrResourceExhausted, exitFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := tc.err
			if err != nil {
				err = fmt.Errorf("object: %w", errors.Join(err, io.ErrUnexpectedEOF))
			}
			if got := exitCode(err); got != tc.want {
				t.Errorf("exit code of %v is %d, want %d", err, got, tc.want)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("signal")
	cancel(cause)
	for _, tc := range []struct {
		name string
		ctx  context.Context
		err  error
		code int
		want string
	}{
		{"ok", t.Context(), nil, 0, ""},
		{"remedy", t.Context(), fmt.Errorf("a: %w", withRemedy(errors.New("b"), "do %s", "c")), 1, "peel: a: b\n      do c\n"},
		{"of the server", t.Context(), &failure{Message: "m", Remedy: "r", Code: 4}, 4, "peel: m\n      r\n"},
		{
			"full cache", t.Context(), fmt.Errorf("a: %w", cache.ErrFull), 1,
			"peel: a: cache folder is full\n      free some space, or choose another folder with --cache or PEEL_CACHE\n",
		},
		{
			"full disk", t.Context(), &fs.PathError{Op: "write", Path: "/a", Err: syscall.ENOSPC}, 1,
			"peel: write /a: no space left on device\n      free some space there, or name another place; the cache folder's is --cache\n",
		},
		{"joined", t.Context(), errors.Join(errors.New("a"), errors.New("b")), 1, "peel: a; b\n"},
		{"escape sequences", t.Context(), errors.New("a\x1b[2Jb\x07"), 1, "peel: a�[2Jb�\n"},
		{"interrupted", ended, fmt.Errorf("x: %w", context.Canceled), exitInterrupted, "peel: interrupted\n"},
		{"interrupted by cause", ended, fmt.Errorf("x: %w", cause), exitInterrupted, "peel: interrupted\n"},
		{"failed at the same time", ended, errors.New("disk"), 1, "peel: disk\n"},
		{"cancelled by nobody", t.Context(), context.Canceled, 1, "peel: context canceled\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if code := (streams{err: &out}).report(tc.ctx, tc.err); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if d := cmp.Diff(tc.want, out.String()); d != "" {
				t.Errorf("message (-want +got):\n%s", d)
			}
		})
	}
}

// TestBlame: who can help with wrong bytes depends on where they are.
func TestBlame(t *testing.T) {
	t.Parallel()
	file := "what is in /x.tar is damaged, or was made wrong; save or copy the image there anew"
	for _, tc := range []struct {
		name, ref string
		err       error
		want      string
	}{
		{"registry", "alpine", layer.ErrVerify, askRegistry},
		{"file", "docker-archive:/x.tar", fmt.Errorf("a: %w", layer.ErrVerify), file},
		{"file, told by the server", "docker-archive:/x.tar", &failure{"m", askRegistry, exitVerification}, file},
		{"another remedy", "docker-archive:/x.tar", withRemedy(layer.ErrVerify, "r"), "r"},
		{"another remedy of the server", "docker-archive:/x.tar", &failure{"m", "r", exitVerification}, "r"},
		{"another error", "docker-archive:/x.tar", errors.New("x"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref, err := manifest.ParseReference(tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			got := explain(t.Context(), blame(tc.err, ref))
			if got.Remedy != tc.want || got.Code != explain(t.Context(), tc.err).Code {
				t.Errorf("%+v, want remedy %q", got, tc.want)
			}
		})
	}
}
