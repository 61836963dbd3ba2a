package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api/client"
)

// completeTimeout is how long a shell waits for the names that could be meant.
const completeTimeout = 2 * time.Second

func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, c *client.Client) (names []string, err error) {
		nodes, err := c.Nodes(ctx)
		for _, n := range nodes {
			names = append(names, n.Inventory.Name)
		}
		return names, err
	})
}

func (a *app) completeWorkloads(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, c *client.Client) (names []string, err error) {
		workloads, err := c.Workloads(ctx)
		for _, w := range workloads {
			names = append(names, w.Name)
		}
		return names, err
	})
}

// complete asks the node for names, for the first argument only. A node that
// cannot be reached leaves the shell without any.
func (a *app) complete(cmd *cobra.Command, args []string, list func(context.Context, *client.Client) ([]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	c, closeClient, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer closeClient()
	names, err := list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
