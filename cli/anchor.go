package cli

import (
	"cmp"
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) anchorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "anchor", Short: "Look after the nodes that hold the cluster's state"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the anchors and how far they are",
			Args: exactly(),
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
				return runAnchorList(ctx, c, p)
			}),
		},
		a.anchorPolicyCommand("add", "Make a node an anchor", api.AnchorAlways),
		a.anchorPolicyCommand("remove", "Take a node out of the anchors; it stays a node", api.AnchorNever),
		&cobra.Command{
			Use: "transfer NODE", Short: "Make another anchor the leader",
			Args: exactly("NODE"), ValidArgsFunction: a.completeNodes,
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				return runAnchorTransfer(ctx, args[0], c, p)
			}),
		},
		a.anchorBackupCommand(),
		a.anchorRestoreCommand(),
		a.anchorRecoveryKeyCommand(),
		a.anchorSnapshotsCommand(),
		a.anchorFetchCommand(),
		a.anchorAuthorityCommand(),
		a.anchorRotateCommand(),
	)
	return cmd
}

func (a *app) anchorPolicyCommand(verb, short string, policy api.AnchorPolicy) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: verb + " NODE", Short: short,
		Args: exactly("NODE"), ValidArgsFunction: a.completeNodes,
		RunE: a.within(a.waitTimeout(&wait), func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			return runAnchorPolicy(ctx, args[0], policy, wait, c, p, a.waiter())
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	return cmd
}

func runAnchorList(ctx context.Context, c *client.Client, p *printer) error {
	anchors, err := c.Anchors(ctx)
	if err != nil {
		return err
	}
	return printList(p, anchors, array(anchors, newAnchorJSON), func(a api.AnchorStatus) string { return a.Name }, anchorColumns)
}

// anchorChange is what "add", "remove" and "transfer" have done.
type anchorChange struct {
	ID   api.NodeID `json:"id"`
	Name string     `json:"name"`
	Done bool       `json:"done"` // false when the cluster is still at it
}

func runAnchorPolicy(ctx context.Context, node string, policy api.AnchorPolicy, wait bool, c *client.Client, p *printer, w *waiter) error {
	id, name, err := c.SetAnchorPolicy(ctx, node, policy)
	if err != nil {
		return err
	}
	joins := policy == api.AnchorAlways
	if wait {
		if err := w.settled(ctx, c, id, joins); err != nil {
			return err
		}
	}
	change := anchorChange{id, name, wait}
	sentence := "%s is no anchor any more"
	switch {
	case joins && wait:
		sentence = "%s is an anchor"
	case joins:
		sentence = "%s becomes an anchor"
	case !wait:
		sentence = "%s leaves the anchors"
	}
	return p.done(change, name, sentence, name)
}

func runAnchorTransfer(ctx context.Context, node string, c *client.Client, p *printer) error {
	id, name, err := c.TransferLeadership(ctx, node)
	if err != nil {
		return err
	}
	return p.done(anchorChange{id, name, true}, name, "%s leads", name)
}

// settled waits until a node is an anchor that has caught up, or is none any
// more.
func (w *waiter) settled(ctx context.Context, c *client.Client, id api.NodeID, joins bool) error {
	return w.until(ctx, func() (string, bool, error) {
		anchors, err := c.Anchors(ctx)
		if err != nil {
			return "", false, err
		}
		there := standingOf(anchors, id)
		if there.settled(joins) {
			return "", true, nil
		}
		return string(there), false, nil
	})
}

// standing is a node's place among the anchors, "" for none.
type standing api.AnchorStanding

func standingOf(anchors []api.AnchorStatus, id api.NodeID) standing {
	for _, a := range anchors {
		if a.ID == id {
			return standing(a.Standing)
		}
	}
	return ""
}

func (s standing) settled(joins bool) bool {
	switch api.AnchorStanding(s) {
	case api.AnchorLeader, api.AnchorVoter, api.AnchorStandby:
		return joins
	case "":
		return !joins
	}
	return false
}

// anchorJSON is an anchor as scripts see it.
type anchorJSON struct {
	ID        api.NodeID         `json:"id"`
	Name      string             `json:"name"`
	Standing  api.AnchorStanding `json:"standing"`
	State     api.NodeState      `json:"state"`
	Policy    api.AnchorPolicy   `json:"policy"`
	Reachable bool               `json:"reachable"`
	Applied   uint64             `json:"applied"`
	Behind    uint64             `json:"behind"`
	Epoch     uint64             `json:"epoch"`
	Problem   string             `json:"problem,omitempty"` // of one that is halted

	Authority        api.AuthorityUse `json:"authority"`         // generations: of its certificate, known, held
	ClusterAuthority int              `json:"cluster_authority"` // the generation that issues now
}

func newAnchorJSON(a api.AnchorStatus) anchorJSON { return anchorJSON(a) }

var anchorColumns = []column[api.AnchorStatus]{
	{title: "NAME", text: func(_ *printer, a api.AnchorStatus) string { return a.Name }},
	{title: "STANDING", text: func(_ *printer, a api.AnchorStatus) string { return string(a.Standing) }},
	{title: "STATE", state: true, text: func(_ *printer, a api.AnchorStatus) string { return string(a.State) }},
	{title: "REACHABLE", text: func(_ *printer, a api.AnchorStatus) string { return yesNo(a.Reachable) }},
	{title: "BEHIND", text: func(_ *printer, a api.AnchorStatus) string {
		if !a.Reachable {
			return none
		}
		return strconv.FormatUint(a.Behind, 10)
	}},
	{title: "POLICY", text: func(_ *printer, a api.AnchorStatus) string { return string(a.Policy) }},
	{title: "PROBLEM", text: func(_ *printer, a api.AnchorStatus) string { return cmp.Or(a.Problem, none) }},
	{title: "APPLIED", wide: true, text: func(_ *printer, a api.AnchorStatus) string { return strconv.FormatUint(a.Applied, 10) }},
	{title: "EPOCH", wide: true, text: func(_ *printer, a api.AnchorStatus) string { return strconv.FormatUint(a.Epoch, 10) }},
	{title: "ID", wide: true, text: func(_ *printer, a api.AnchorStatus) string { return string(a.ID) }},
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
