package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) workloadCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "workload", Short: "Run containers and look into them"}
	cmd.AddCommand(
		a.workloadRunCommand(),
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the workloads",
			Args: exactly(),
			RunE: a.look(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
				return runWorkloadList(ctx, c, p)
			}),
		},
		&cobra.Command{
			Use: "show W", Short: "Show everything about a workload",
			Args: exactly("W"), ValidArgsFunction: a.completeWorkloads,
			RunE: a.look(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				return runWorkloadShow(ctx, args[0], c, p)
			}),
		},
		&cobra.Command{
			Use: "delete W", Aliases: []string{"rm"}, Short: "Stop a workload and forget it",
			Args: exactly("W"), ValidArgsFunction: a.completeWorkloads,
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				if err := a.confirm("Delete workload %s and stop its replicas?", args[0]); err != nil {
					return err
				}
				return runWorkloadDelete(ctx, args[0], c, p)
			}),
		},
		a.workloadScaleCommand(),
		a.workloadRestartCommand(),
		a.workloadLogsCommand(),
		a.workloadExecCommand(),
		a.workloadExplainCommand(),
	)
	return cmd
}

func runWorkloadList(ctx context.Context, c *client.Client, p *printer) error {
	workloads, err := c.Workloads(ctx)
	if err != nil {
		return err
	}
	return printList(p, workloads, array(workloads, newWorkloadJSON), workloadName, workloadColumns)
}

func runWorkloadShow(ctx context.Context, name string, c *client.Client, p *printer) error {
	w, err := c.Workload(ctx, name)
	if err != nil {
		return err
	}
	if p.format == formatName {
		return printNames(p, []api.WorkloadStatus{w}, workloadName)
	}
	names, err := nodeNames(ctx, c)
	if err != nil {
		return err
	}
	if p.machine() {
		return p.value(newWorkloadDetailJSON(w, names))
	}
	if err := p.fields(workloadFields(p, w)); err != nil {
		return err
	}
	if len(w.Replicas) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(p.out); err != nil {
		return err
	}
	return printTable(p, sortedReplicas(w.Replicas), replicaColumns(names))
}

func runWorkloadDelete(ctx context.Context, name string, c *client.Client, p *printer) error {
	if err := c.DeleteWorkload(ctx, name); err != nil {
		return err
	}
	deleted := struct {
		Name    string `json:"name"`
		Deleted bool   `json:"deleted"`
	}{name, true}
	return p.done(deleted, name, "workload %s deleted", name)
}

func workloadName(w api.WorkloadStatus) string { return w.Name }

// nodeNames maps the IDs of nodes to their names.
func nodeNames(ctx context.Context, c *client.Client) (map[api.NodeID]string, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[api.NodeID]string, len(nodes))
	for _, n := range nodes {
		names[n.ID] = n.Inventory.Name
	}
	return names, nil
}

// sortedReplicas orders replicas by slot, the newest generation first.
func sortedReplicas(replicas []api.Replica) []api.Replica {
	return slices.SortedFunc(slices.Values(replicas), func(a, b api.Replica) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		return b.Generation - a.Generation
	})
}

func readiness(w api.WorkloadStatus) string {
	return fmt.Sprintf("%d/%d", w.Ready, w.Spec.Replicas)
}

var workloadColumns = []column[api.WorkloadStatus]{
	{title: "NAME", text: func(_ *printer, w api.WorkloadStatus) string { return w.Name }},
	{title: "STATE", state: true, text: func(_ *printer, w api.WorkloadStatus) string { return string(w.State) }},
	{title: "READY", text: func(_ *printer, w api.WorkloadStatus) string { return readiness(w) }},
	{title: "REVISION", text: func(_ *printer, w api.WorkloadStatus) string { return strconv.Itoa(w.Revision) }},
	{title: "AGE", text: func(p *printer, w api.WorkloadStatus) string { return age(p.now, w.CreatedAt) }},
	{title: "IMAGE", text: func(_ *printer, w api.WorkloadStatus) string { return or(w.Spec.Image, none) }},
	{title: "LABELS", wide: true, text: func(_ *printer, w api.WorkloadStatus) string { return or(pairsOf(w.Labels), none) }},
	{title: "MESSAGE", text: func(_ *printer, w api.WorkloadStatus) string { return w.Message }},
}

func workloadFields(p *printer, w api.WorkloadStatus) []field {
	ports := array(w.Spec.Ports, portText)
	return []field{
		{"Name", w.Name},
		{"State", string(w.State)},
		{"Message", w.Message},
		{"Ready", readiness(w)},
		{"Image", w.Spec.Image},
		{"Command", strings.Join(append(slices.Clone(w.Spec.Command), w.Spec.Args...), " ")},
		{"Ports", strings.Join(ports, ", ")},
		{"Revision", strconv.Itoa(w.Revision)},
		{"Rollout", rolloutText(w.Rollout)},
		{"Labels", pairsOf(w.Labels)},
		{"Created", ago(p, w.CreatedAt)},
		{"Updated", ago(p, w.UpdatedAt)},
	}
}

// rolloutText says how far a rollout has come.
func rolloutText(r *api.Rollout) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s, %d of revision %d ready, %d of older ones run", r.State, r.Updated, r.Revision, r.Outdated)
}

// portText writes a port like 80→8080/tcp.
func portText(port api.Port) string {
	text := strconv.Itoa(port.Port)
	if port.Target != 0 && port.Target != port.Port {
		text += "→" + strconv.Itoa(port.Target)
	}
	return text + "/" + or(port.Protocol, "tcp")
}

func replicaColumns(names map[api.NodeID]string) []column[api.Replica] {
	return []column[api.Replica]{
		{title: "REPLICA", text: func(_ *printer, r api.Replica) string { return string(r.ID) }},
		{title: "STATE", state: true, text: func(_ *printer, r api.Replica) string { return string(r.State) }},
		{title: "NODE", text: func(_ *printer, r api.Replica) string { return or(nodeName(names, r.Node), none) }},
		{title: "ADDRESS", text: func(_ *printer, r api.Replica) string { return or(r.Address, none) }},
		{title: "REVISION", wide: true, text: func(_ *printer, r api.Replica) string { return strconv.Itoa(r.Revision) }},
		{title: "RESTARTS", text: func(_ *printer, r api.Replica) string { return strconv.Itoa(r.Restarts) }},
		{title: "AGE", text: func(p *printer, r api.Replica) string { return age(p.now, r.CreatedAt) }},
		{title: "REASON", text: func(_ *printer, r api.Replica) string { return r.Reason }},
		{title: "DECISION", wide: true, text: func(_ *printer, r api.Replica) string { return r.Decision }},
	}
}

// nodeName returns the name of a node, and its ID when it has none any more.
func nodeName(names map[api.NodeID]string, id api.NodeID) string {
	return or(names[id], shortID(id))
}
