package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peelfs/peel/remote"
)

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout [REGISTRY]",
		Short: "Forget the login to a registry",
		Long: `Remove the login to a registry from where peel login and docker login keep it.

Without a REGISTRY it is Docker Hub's. Logins of podman are left to podman logout.`,
		Args: takes(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			domain, err := registryName(args)
			if err != nil {
				return err
			}
			kept, found, err := remote.DropLogin(domain)
			if err != nil {
				return fmt.Errorf("logout of %s: %w", domain, err)
			}
			if !found {
				_, err = fmt.Fprintf(a.out, "no login to %s is kept in %s\n", domain, kept.File)
				return err
			}
			_, err = fmt.Fprintf(a.out, "logged out of %s\n", domain)
			return err
		},
	}
}
