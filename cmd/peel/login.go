package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/peelfs/peel/remote"
)

type loginOptions struct{ *app }

const loginHelp = `Check a user name and password with a registry, and keep them.

They are kept where docker login keeps them, so that either program knows the
logins of the other: in the credential helper of docker's configuration
($DOCKER_CONFIG, else ~/.docker) or, without one, unencrypted in that file; in
$REGISTRY_AUTH_FILE, if that is set. The logins of podman are found, too.

Without a REGISTRY it is Docker Hub's. Many registries want an access token in
place of the password.`

func (a *app) loginCommand() *cobra.Command {
	o := &loginOptions{a}
	cmd := &cobra.Command{
		Use:   "login [flags] [REGISTRY]",
		Short: "Log in to a registry",
		Long:  loginHelp,
		Example: `  peel login ghcr.io
  gh auth token | peel login -u owner --password-stdin ghcr.io`,
		Args:        takes(cobra.MaximumNArgs(1)),
		Annotations: map[string]string{asksPassword: "yes"},
		RunE:        func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Flags().StringVarP(&a.username, "username", "u", "", "`user` to log in as")
	return cmd
}

func (o *loginOptions) run(ctx context.Context, args []string) error {
	domain, err := registryName(args)
	if err != nil {
		return err
	}
	if o.token != "" {
		return withRemedy(usagef("--token is for one run, and not kept"), "give it as the password, if the registry takes that")
	}
	login := remote.Credentials{Registry: domain, Username: o.username}
	if err := o.ask(ctx, &login); err != nil {
		return err
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	client, err := o.client(log)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Login(ctx, domain, login); err != nil {
		return err
	}
	kept, err := remote.KeepLogin(domain, login)
	if err != nil {
		return withRemedy(fmt.Errorf("login kept nowhere: %w", err), "check docker's configuration, or choose another with DOCKER_CONFIG")
	}
	if kept.Helper == "" {
		fmt.Fprintf(o.err, "peel: the password is kept unencrypted in %s; configure a credential helper to avoid that\n", kept.File)
	}
	_, err = fmt.Fprintf(o.out, "logged in to %s as %s\n", domain, oneLine(login.Username))
	return err
}

// registryName is the domain of references that the first argument means.
func registryName(args []string) (string, error) {
	if len(args) == 0 {
		return "docker.io", nil
	}
	name := args[0]
	if remote.IsHub(name) {
		return "docker.io", nil
	}
	bare := name
	if _, rest, ok := strings.Cut(name, "://"); ok {
		bare, _, _ = strings.Cut(rest, "/")
	}
	ref, err := reference.ParseNormalizedNamed(name + "/repository")
	if err != nil || strings.Contains(name, "/") || reference.Domain(ref) != name {
		return "", withRemedy(usagef("%q is not the name of a registry", name), "give its host, and port if it has one, for example: %s", hostExample(bare))
	}
	return name, nil
}

func hostExample(s string) string {
	host, _, _ := strings.Cut(s, "/")
	if ref, err := reference.ParseNormalizedNamed(host + "/repository"); err == nil && reference.Domain(ref) == host {
		return host
	}
	return "ghcr.io"
}

// ask completes the login from standard input.
func (o *loginOptions) ask(ctx context.Context, login *remote.Credentials) error {
	if o.passwordStdin {
		if login.Username == "" {
			return withRemedy(usagef("--password-stdin without a user name"), "add: -u NAME")
		}
		var err error
		login.Password, err = o.readPassword()
		return err
	}
	tty, ok := o.in.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return withRemedy(usagef("no terminal to ask for the password on"), "write it to standard input and add: -u NAME --password-stdin")
	}
	state, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return err
	}
	asked := make(chan error, 1)
	go func() { asked <- o.prompt(tty, login) }() // ends with the answer, or the process
	select {
	case err := <-asked:
		return err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), term.Restore(int(tty.Fd()), state))
	}
}

func (o *loginOptions) prompt(tty *os.File, login *remote.Credentials) error {
	if login.Username == "" {
		fmt.Fprint(o.err, "User name: ")
		line, err := bufio.NewReader(tty).ReadString('\n')
		if err != nil {
			return fmt.Errorf("user name: %w", err)
		}
		if login.Username = strings.TrimSpace(line); login.Username == "" {
			return usagef("the user name is empty")
		}
	}
	fmt.Fprint(o.err, "Password: ")
	password, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(o.err)
	if err != nil {
		return fmt.Errorf("password: %w", err)
	}
	if login.Password = string(password); login.Password == "" {
		return usagef("the password is empty")
	}
	return nil
}
