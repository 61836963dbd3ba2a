package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) nodeDrainCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Empty a node: its replicas move elsewhere, and it takes no more until it is uncordoned",
		Args: exactly("NODE"), ValidArgsFunction: a.completeNodes,
		RunE: a.within(a.waitTimeout(&wait), func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			return runNodeDrain(ctx, args[0], wait, c, p, a.waiter())
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until nothing runs there any more")
	return cmd
}

func runNodeDrain(ctx context.Context, node string, wait bool, c *client.Client, p *printer, w *waiter) error {
	n, err := c.UpdateNode(ctx, api.NodeUpdate{Node: node, Drain: true})
	if err != nil {
		return err
	}
	if !wait {
		return p.done(newNodeJSON(n), n.Inventory.Name, "node %s is being drained, %s on it", n.Inventory.Name, counted(n.Replicas, "replica"))
	}
	if n, err = w.empty(ctx, c, n); err != nil {
		return err
	}
	return p.done(newNodeJSON(n), n.Inventory.Name, "node %s is empty", n.Inventory.Name)
}

// empty waits until nothing runs on a node that is being drained.
func (w *waiter) empty(ctx context.Context, c *client.Client, n api.NodeStatus) (api.NodeStatus, error) {
	name := n.Inventory.Name
	fresh := true // n is what the drain has just answered
	err := w.until(ctx, func() (string, bool, error) {
		if !fresh {
			latest, err := c.Node(ctx, string(n.ID))
			if err != nil {
				return "", false, err
			}
			n = latest
		}
		fresh = false
		switch {
		case n.Replicas == 0:
			return "", true, nil
		case n.State == api.NodeReady || n.State == api.NodeCordoned:
			return "", false, api.Errorf(api.KindConflict, "node %s was uncordoned meanwhile", name)
		}
		return fmt.Sprintf("%s: %s left", name, counted(n.Replicas, "replica")), false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return n, api.Errorf(api.KindUnplaced, "node %s still has %s", name, counted(n.Replicas, "replica")).
			WithHint("they stay until they have another place: see \"cloudless workload list\", and \"cloudless workload explain\"")
	}
	return n, err
}
