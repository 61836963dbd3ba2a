package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/buildinfo"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this binary",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			return runVersion(api.Version(buildinfo.Read()), a.printer())
		},
	}
}

func runVersion(v api.Version, p *printer) error {
	switch {
	case p.machine():
		return p.value(v)
	case p.format == formatName:
		_, err := fmt.Fprintln(p.out, v.Version)
		return err
	}
	_, err := fmt.Fprintf(p.out, "cloudless %s (commit %s, %s, %s/%s)\n", v.Version, v.Commit, v.Go, v.OS, v.Arch)
	return err
}
