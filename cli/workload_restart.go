package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) workloadRestartCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "restart W", Short: "Replace every replica of a workload by a new one, as an update would",
		Args: exactly("W"), ValidArgsFunction: a.completeWorkloads,
		RunE: a.within(a.waitTimeout(&wait), func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			return runWorkloadRestart(ctx, args[0], wait, c, p, a.waiter())
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is healthy")
	return cmd
}

func runWorkloadRestart(ctx context.Context, name string, wait bool, c *client.Client, p *printer, w *waiter) error {
	status, err := c.RestartWorkload(ctx, name)
	if err != nil {
		return err
	}
	if wait {
		if status, err = w.healthy(ctx, c, name, status.Revision); err != nil {
			return err
		}
	}
	return p.done(newWorkloadJSON(status), status.Name, "workload %s restarts as revision %d", status.Name, status.Revision)
}
