package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) networkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "network", Short: "Look at services and at the paths between nodes"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "services", Short: "List the services and their endpoints",
			Args: exactly(),
			RunE: a.look(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
				return runNetworkServices(ctx, c, p)
			}),
		},
		a.networkPeersCommand(),
		a.networkDoctorCommand(),
	)
	return cmd
}

func (a *app) networkPeersCommand() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "peers", Short: "List the peers of a node and the paths to them",
		Args: exactly(),
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runNetworkPeers(ctx, node, c, p)
		}),
	}
	a.addNodeFlag(cmd, &node)
	return cmd
}

// addNodeFlag lets a command speak of another node than the one that is asked.
func (a *app) addNodeFlag(cmd *cobra.Command, node *string) {
	cmd.Flags().StringVar(node, "node", "", "ask `NODE` instead of the one that answers")
	_ = cmd.RegisterFlagCompletionFunc("node", a.completeNodes)
}

func runNetworkServices(ctx context.Context, c *client.Client, p *printer) error {
	services, err := c.Services(ctx)
	if err != nil {
		return err
	}
	return printList(p, services, array(services, newServiceJSON), func(s api.ServiceStatus) string { return s.Name }, serviceColumns)
}

func runNetworkPeers(ctx context.Context, node string, c *client.Client, p *printer) error {
	peers, err := c.Peers(ctx, node)
	if err != nil {
		return err
	}
	return printList(p, peers, array(peers, newPeerJSON), func(peer api.Peer) string { return or(peer.Name, string(peer.ID)) }, peerColumns)
}

type serviceJSON struct {
	Name      string         `json:"name"`
	VIP       string         `json:"vip"`
	DNS       string         `json:"dns"`
	Ports     []api.Port     `json:"ports"`
	Endpoints []api.Endpoint `json:"endpoints"`

	StaleSince time.Time `json:"stale_since,omitzero"` // no anchor has been heard since
}

func newServiceJSON(s api.ServiceStatus) serviceJSON {
	return serviceJSON{s.Name, s.VIP, s.DNS(), append([]api.Port{}, s.Ports...), append([]api.Endpoint{}, s.Endpoints...), s.StaleSince}
}

type peerJSON struct {
	ID        api.NodeID `json:"id"`
	Name      string     `json:"name"`
	Path      api.Path   `json:"path"`
	Transport string     `json:"transport"`
	Address   string     `json:"address"`
	RTT       float64    `json:"rtt_ms"`
	Since     moment     `json:"since"`
	BytesIn   uint64     `json:"bytes_in"`
	BytesOut  uint64     `json:"bytes_out"`
}

func newPeerJSON(p api.Peer) peerJSON {
	return peerJSON{p.ID, p.Name, p.Path, p.Transport, p.Address, p.RTT, moment(p.Since), p.BytesIn, p.BytesOut}
}

var serviceColumns = []column[api.ServiceStatus]{
	{title: "NAME", text: func(_ *printer, s api.ServiceStatus) string { return s.Name }},
	{title: "VIP", text: func(_ *printer, s api.ServiceStatus) string { return s.VIP }},
	{title: "PORTS", text: func(_ *printer, s api.ServiceStatus) string {
		return or(strings.Join(array(s.Ports, portText), ","), none)
	}},
	{title: "READY", text: func(_ *printer, s api.ServiceStatus) string {
		ready := 0
		for _, e := range s.Endpoints {
			if e.Ready {
				ready++
			}
		}
		return fmt.Sprintf("%d/%d", ready, len(s.Endpoints))
	}},
	{title: "DNS", text: func(_ *printer, s api.ServiceStatus) string { return s.DNS() }},
	{title: "ENDPOINTS", wide: true, text: func(_ *printer, s api.ServiceStatus) string {
		return or(strings.Join(array(s.Endpoints, endpointText), ", "), none)
	}},
}

func endpointText(e api.Endpoint) string {
	text := string(e.Replica) + " " + or(string(e.Path), none)
	if e.RTT > 0 {
		text += " " + milliseconds(e.RTT)
	}
	if !e.Ready {
		text += " (not ready)"
	}
	return text
}

var peerColumns = []column[api.Peer]{
	{title: "NAME", text: func(_ *printer, p api.Peer) string { return or(p.Name, none) }},
	{title: "PATH", text: func(_ *printer, p api.Peer) string { return or(string(p.Path), none) }},
	{title: "TRANSPORT", text: func(_ *printer, p api.Peer) string { return or(p.Transport, none) }},
	{title: "RTT", text: func(_ *printer, p api.Peer) string { return milliseconds(p.RTT) }},
	{title: "SINCE", text: func(p *printer, peer api.Peer) string { return age(p.now, peer.Since) }},
	{title: "IN", text: func(_ *printer, p api.Peer) string { return size(int64(p.BytesIn)) }},
	{title: "OUT", text: func(_ *printer, p api.Peer) string { return size(int64(p.BytesOut)) }},
	{title: "ADDRESS", text: func(_ *printer, p api.Peer) string { return or(p.Address, none) }},
	{title: "ID", wide: true, text: func(_ *printer, p api.Peer) string { return string(p.ID) }},
}
