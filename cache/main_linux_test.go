package cache

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// helperEnv names the part that this binary plays as a process of its own.
const helperEnv = "PEEL_CACHE_TEST_HELPER"

func TestMain(m *testing.M) {
	part := os.Getenv(helperEnv)
	if part == "" {
		os.Exit(m.Run())
	}
	parts := map[string]func(dir string) error{
		"fill":       fillPart,
		"fill on":    fillOnPart,
		"stage":      stagePart,
		"die":        diePart,
		"go on":      goOnPart,
		"full":       fullPart,
		"full stage": fullStagePart,
		"readonly":   readOnlyPart,
		"own":        ownMountPart,
		"claim":      claimPart,
		"claim on":   claimOnPart,
	}
	if err := parts[part](os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", part, err)
		os.Exit(1)
	}
}

// helper returns a process of this binary that plays part on dir.
func helper(t *testing.T, part, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, dir)
	cmd.Env = append(os.Environ(), helperEnv+"="+part, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// mounter returns a helper that may mount, seen by nobody else.
func mounter(t *testing.T, part string) *exec.Cmd {
	t.Helper()
	cmd := helper(t, part, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// mount mounts a small file system on dir, for this process only.
func mount(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
}
