package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Run this device as a node, and look after the others"}
	cmd.AddCommand(
		a.nodeStartCommand(),
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the nodes of the cluster",
			Args: exactly(),
			RunE: a.look(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
				return runNodeList(ctx, c, p)
			}),
		},
		&cobra.Command{
			Use: "show NODE", Short: "Show everything about a node",
			Args: exactly("NODE"), ValidArgsFunction: a.completeNodes,
			RunE: a.look(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				return runNodeShow(ctx, args[0], c, p)
			}),
		},
		a.nodeCordonCommand("cordon", "Give a node no more work", true),
		a.nodeCordonCommand("uncordon", "Give a node work again", false),
		a.nodeDrainCommand(),
		a.nodeRemoveCommand(),
		&cobra.Command{
			Use: "label NODE K=V...", Short: "Set labels of a node; K- removes one",
			Args: atLeast("NODE", "K=V"), ValidArgsFunction: a.completeNodes,
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				return runNodeLabel(ctx, args[0], args[1:], c, p)
			}),
		},
	)
	return cmd
}

func (a *app) nodeCordonCommand(verb, short string, cordoned bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NODE", Short: short,
		Args: exactly("NODE"), ValidArgsFunction: a.completeNodes,
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			return runNodeCordon(ctx, args[0], cordoned, c, p)
		}),
	}
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	var opts nodeRemoveOptions
	cmd := &cobra.Command{
		Use: "remove NODE", Aliases: []string{"rm"}, Short: "Remove a node for good: its identity is revoked",
		Args: exactly("NODE"), ValidArgsFunction: a.completeNodes,
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			opts.node = args[0]
			if err := a.confirm("Remove node %s? It can only come back with a new token.", opts.node); err != nil {
				return err
			}
			return runNodeRemove(ctx, opts, c, p)
		}),
	}
	cmd.Flags().StringVar(&opts.reason, "reason", "", "`WHY`, for the events and the audit log")
	return cmd
}

func runNodeList(ctx context.Context, c *client.Client, p *printer) error {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	return printList(p, nodes, array(nodes, newNodeJSON), func(n api.NodeStatus) string { return n.Inventory.Name }, nodeColumns)
}

func runNodeShow(ctx context.Context, node string, c *client.Client, p *printer) error {
	n, err := c.Node(ctx, node)
	if err != nil {
		return err
	}
	switch {
	case p.machine():
		return p.value(newNodeJSON(n))
	case p.format == formatName:
		return printNames(p, []api.NodeStatus{n}, func(n api.NodeStatus) string { return n.Inventory.Name })
	}
	return p.fields(nodeFields(p, n))
}

func runNodeCordon(ctx context.Context, node string, cordoned bool, c *client.Client, p *printer) error {
	n, err := c.UpdateNode(ctx, api.NodeUpdate{Node: node, Cordoned: &cordoned})
	if err != nil {
		return err
	}
	verb := "cordoned"
	if !cordoned {
		verb = "uncordoned"
	}
	return p.done(newNodeJSON(n), n.Inventory.Name, "node %s %s", n.Inventory.Name, verb)
}

func runNodeLabel(ctx context.Context, node string, labels []string, c *client.Client, p *printer) error {
	update := api.NodeUpdate{Node: node, SetLabels: map[string]string{}}
	for _, l := range labels {
		key, value, set := strings.Cut(l, "=")
		switch {
		case set && key != "":
			update.SetLabels[key] = value
		case !set && len(l) > 1 && strings.HasSuffix(l, "-"):
			update.RemoveLabels = append(update.RemoveLabels, strings.TrimSuffix(l, "-"))
		default:
			return badUsage("cloudless node label", "%q is not a label: write K=V to set one, K- to remove one", l)
		}
	}
	n, err := c.UpdateNode(ctx, update)
	if err != nil {
		return err
	}
	return p.done(newNodeJSON(n), n.Inventory.Name, "node %s labelled", n.Inventory.Name)
}

type nodeRemoveOptions struct {
	node   string
	reason string
}

func runNodeRemove(ctx context.Context, opts nodeRemoveOptions, c *client.Client, p *printer) error {
	n, err := c.Node(ctx, opts.node)
	if err != nil {
		return err
	}
	if err := c.RemoveNode(ctx, string(n.ID), opts.reason); err != nil {
		return err
	}
	removed := struct {
		ID      api.NodeID `json:"id"`
		Name    string     `json:"name"`
		Removed bool       `json:"removed"`
	}{n.ID, n.Inventory.Name, true}
	return p.done(removed, n.Inventory.Name, "node %s removed", n.Inventory.Name)
}

// nodeState is the state that people should see: a node that takes no work is
// cordoned first of all, as long as it is well.
func nodeState(n api.NodeStatus) string {
	if n.Cordoned && n.State == api.NodeReady {
		return string(api.NodeCordoned)
	}
	return string(n.State)
}

// nodeLabels merges what the node says with what operators say.
func nodeLabels(n api.NodeStatus) map[string]string {
	labels := map[string]string{}
	for _, from := range []map[string]string{n.Inventory.Labels, n.Labels} {
		for k, v := range from {
			labels[k] = v
		}
	}
	return labels
}

var nodeColumns = []column[api.NodeStatus]{
	{title: "NAME", text: func(_ *printer, n api.NodeStatus) string { return n.Inventory.Name }},
	{title: "STATE", state: true, text: func(_ *printer, n api.NodeStatus) string { return nodeState(n) }},
	{title: "ROLES", text: func(_ *printer, n api.NodeStatus) string { return or(strings.Join(n.Roles, ","), none) }},
	{title: "ZONE", text: func(_ *printer, n api.NodeStatus) string { return or(n.Inventory.Zone, none) }},
	{title: "PATH", text: func(_ *printer, n api.NodeStatus) string { return or(string(n.Path), none) }},
	{title: "RTT", text: func(_ *printer, n api.NodeStatus) string { return milliseconds(n.RTT) }},
	{title: "CPU", text: func(_ *printer, n api.NodeStatus) string {
		return cores(n.Allocated.CPU) + "/" + cores(n.Inventory.Capacity.CPU)
	}},
	{title: "MEMORY", text: func(_ *printer, n api.NodeStatus) string {
		return size(int64(n.Allocated.Memory)) + "/" + size(int64(n.Inventory.Capacity.Memory))
	}},
	{title: "AGE", text: func(p *printer, n api.NodeStatus) string { return age(p.now, n.JoinedAt) }},
	{title: "SEEN", wide: true, text: func(p *printer, n api.NodeStatus) string { return age(p.now, n.LastSeen) }},
	{title: "REGION", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(n.Inventory.Region, none) }},
	{title: "ARCH", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(n.Inventory.Arch, none) }},
	{title: "DISK", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(diskText(n.Inventory), none) }},
	{title: "GPU", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(gpuText(n.Inventory.GPUs), none) }},
	{title: "POWER", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(powerText(n.Inventory.Power), none) }},
	{title: "UPLINK", wide: true, text: func(_ *printer, n api.NodeStatus) string {
		if n.Inventory.Capacity.Bandwidth == 0 {
			return none
		}
		return n.Inventory.Capacity.Bandwidth.String()
	}},
	{title: "NAT", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(string(n.Inventory.NAT), none) }},
	{title: "VERSION", wide: true, text: func(_ *printer, n api.NodeStatus) string { return or(n.Inventory.Version, none) }},
	{title: "ID", wide: true, text: func(_ *printer, n api.NodeStatus) string { return string(n.ID) }},
}

func nodeFields(p *printer, n api.NodeStatus) []field {
	i := n.Inventory
	amount := func(r api.Resources) string {
		return fmt.Sprintf("%s cores, %s memory, %s storage", cores(r.CPU), size(int64(r.Memory)), size(int64(r.Storage)))
	}
	return []field{
		{"Name", i.Name},
		{"ID", string(n.ID)},
		{"State", nodeState(n)},
		{"Reason", n.StateReason},
		{"Problem", n.Problem},
		{"Roles", strings.Join(n.Roles, ", ")},
		{"Halted", n.AnchorProblem},
		{"Region", i.Region},
		{"Zone", i.Zone},
		{"Labels", pairsOf(nodeLabels(n))},
		{"Taints", strings.Join(array(i.Taints, func(t api.Taint) string { return t.Key + "=" + t.Value + ":" + t.Effect }), ", ")},
		{"System", joined(strings.Trim(i.OS+"/"+i.Arch, "/"), i.Kernel, i.Runtime, cgroupText(i.Cgroup))},
		{"Disk", diskText(i)},
		{"GPU", strings.Join(array(i.GPUs, gpuName), ", ")},
		{"Power", powerText(i.Power)},
		{"Version", i.Version},
		{"Path", joined(string(n.Path), strings.Trim(milliseconds(n.RTT), none))},
		{"NAT", string(i.NAT)},
		{"Uplink", uplinkText(i)},
		{"Addresses", addressesText(i.Addresses)},
		{"Containers", n.Subnet},
		{"Capacity", amount(i.Capacity)},
		{"Allocated", amount(n.Allocated)},
		{"Replicas", strconv.Itoa(n.Replicas)},
		{"Joined", ago(p, n.JoinedAt)},
		{"Last seen", ago(p, n.LastSeen)},
	}
}
