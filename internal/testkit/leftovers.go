//go:build linux

package testkit

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// leaveTime is how long a process may take to end after its mount is gone.
const leaveTime = 10 * time.Second

// Mounts lists the mount points below the test's folder, the last made first.
func (p *Peel) Mounts() []string {
	p.t.Helper()
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(p.dir))
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, m := range infos {
		if strings.HasPrefix(m.FSType, "fuse") {
			out = append(out, m.Mountpoint)
		}
	}
	slices.Reverse(out)
	return out
}

// Processes lists the processes that run with the cache.
func (p *Peel) Processes() []int {
	p.t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		p.t.Fatal(err)
	}
	var out []int
	for _, name := range environs {
		env, err := os.ReadFile(name)
		if err != nil {
			continue // has ended, or belongs to somebody else
		}
		vars := bytes.Split(env, []byte{0})
		last := slices.ContainsFunc(vars, func(v []byte) bool { return string(v) == "PEEL_CACHE="+p.Cache })
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if last && err == nil && pid != os.Getpid() {
			out = append(out, pid)
		}
	}
	return out
}

// CheckLeftovers fails the test if a mount, a process or a temporary file is
// left, and takes it away.
func (p *Peel) CheckLeftovers() {
	p.t.Helper()
	for _, dir := range p.Mounts() {
		p.t.Errorf("left mounted: %s", dir)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			p.t.Errorf("lazy unmount of %s: %v", dir, err)
		}
	}
	p.Until(leaveTime, func() bool { return len(p.Processes()) == 0 })
	for _, pid := range p.Processes() {
		cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		p.t.Errorf("left running: %d %q %v", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte(" ")), err)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			p.t.Error(err)
		}
	}
	for _, name := range p.TemporaryFiles() {
		p.t.Errorf("left behind: %s", name)
	}
}

// TemporaryFiles lists what lies in the run's temporary folder, and what in
// the cache only runs under way have: files not yet renamed, layers not yet
// proved, records of mounts.
func (p *Peel) TemporaryFiles() []string {
	p.t.Helper()
	var out []string
	for _, root := range []string{p.Tmp, p.Cache} {
		// What is not there, or goes meanwhile, is not left behind.
		_ = filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			rel := strings.TrimPrefix(name, root+"/")
			if root == p.Tmp || d.Name() == "stage" || d.Name()[0] == '.' ||
				strings.HasPrefix(rel, "tmp/") || strings.HasPrefix(rel, "mounts/") {
				out = append(out, name)
			}
			return nil
		})
	}
	return out
}

// Until polls ok for at most limit and reports whether it came true.
func (p *Peel) Until(limit time.Duration, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return true
		}
	}
	return ok()
}
