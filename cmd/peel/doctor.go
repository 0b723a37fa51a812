package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/remote"
)

// finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // "ok", "warn" or "fail"
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

func fine(check, format string, args ...any) finding {
	return finding{Check: check, Status: "ok", Detail: fmt.Sprintf(format, args...)}
}

func (f finding) warn(remedy string) finding {
	f.Status, f.Remedy = "warn", remedy
	return f
}

func (f finding) fail(remedy string) finding {
	f.Status, f.Remedy = "fail", remedy
	return f
}

type doctorOptions struct {
	*app
	json bool
}

func (a *app) doctorCommand() *cobra.Command {
	o := &doctorOptions{app: a}
	cmd := &cobra.Command{
		Use:   "doctor [flags] [REGISTRY...]",
		Short: "Check what peel needs on this machine",
		Long: `Check what peel needs on this machine, and say what to do where it is missing.

The registries named are asked whether they answer; without any, those of the
images that are mounted, else Docker Hub. The exit code is 1 if a check fails.`,
		Example: "  peel doctor ghcr.io registry.example.com:5000",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of objects for programs")
	return cmd
}

func (o *doctorOptions) run(ctx context.Context, registries []string) error {
	for _, r := range registries {
		if strings.Contains(r, "/") {
			return withRemedy(usagef("%q is not the name of a registry", r), "give its host, and port if it has one, for example ghcr.io")
		}
	}
	findings := o.machine()
	findings = append(findings, o.cacheFolder()...)
	asked, err := o.registries(ctx, registries)
	if err != nil {
		return err
	}
	findings = append(findings, asked...)
	if o.json {
		err = writeJSON(o.out, findings)
	} else {
		err = o.print(findings)
	}
	if err != nil {
		return err
	}
	bad := 0
	for _, f := range findings {
		if f.Status == "fail" {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d checks failed", bad, len(findings))
	}
	return nil
}

func (o *doctorOptions) print(findings []finding) error {
	t := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Status, f.Check, oneLine(f.Detail))
		if f.Remedy != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", f.Remedy)
		}
	}
	return t.Flush()
}

// cacheFolder checks that the folder can be used, as every command does.
func (o *doctorOptions) cacheFolder() []finding {
	const check = "cache folder"
	dir, err := o.cacheDir()
	if err == nil {
		_, err = cache.Open(dir)
	}
	if err != nil {
		return []finding{fine(check, "%v", err).fail("choose another folder with --cache or " + cacheEnv)}
	}
	return append([]finding{fine(check, "%s can be written to", dir)}, o.disk(dir)...)
}

// pingTimeout bounds the wait for one registry.
const pingTimeout = 10 * time.Second

// registries asks the given registries, or the ones in use.
func (o *doctorOptions) registries(ctx context.Context, given []string) ([]finding, error) {
	log, err := o.logger(o.err, logrus.ErrorLevel)
	if err != nil {
		return nil, err
	}
	client, err := o.client(log)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	names := given
	if len(given) == 0 {
		names = o.inUse(ctx)
	}
	findings := make([]finding, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() error {
			findings[i] = ping(ctx, client, name)
			if findings[i].Status == "fail" && len(given) == 0 {
				findings[i].Status = "warn" // nobody said that it is needed
			}
			return nil
		})
	}
	return findings, g.Wait()
}

func ping(ctx context.Context, client *remote.Client, name string) finding {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	begin := time.Now()
	check := "registry " + name
	if err := client.Ping(ctx, name); err != nil {
		return fine(check, "%s", strings.TrimPrefix(err.Error(), check+": ")).fail("check the name, the network and proxies; images in the cache work without it")
	}
	return fine(check, "answers after %d ms", time.Since(begin).Milliseconds())
}

// inUse are the registries of mounted images, else the default one.
func (o *doctorOptions) inUse(ctx context.Context) []string {
	var names []string
	if root, err := o.mountsDir(); err == nil {
		mounts, _ := fs.List(ctx, root) // an unreadable record is for peel ps to tell
		for _, m := range mounts {
			if r, err := manifest.ParseReference(m.Reference); err == nil {
				names = append(names, reference.Domain(r.Named()))
			}
		}
	}
	if len(names) == 0 {
		return []string{"docker.io"}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
