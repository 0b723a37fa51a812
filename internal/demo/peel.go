package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// peel runs the program as people do.
type peel struct {
	program string
	cache   string
}

// stopTimeout is how long a command may take to clean up once its context has
// ended.
const stopTimeout = 10 * time.Second

// run runs a sub-command with its output to out. The error has what it said.
func (p *peel) run(ctx context.Context, out io.Writer, command string, args ...string) error {
	args = append([]string{command, "--cache", p.cache}, args...)
	return run(ctx, out, p.program, args...)
}

func run(ctx context.Context, out io.Writer, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w: %s", program, args[0], err, strings.TrimSpace(said.String()))
	}
	return nil
}
