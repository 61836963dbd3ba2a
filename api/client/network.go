package client

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Services returns every service with its endpoints as the peer sees them.
func (c *Client) Services(ctx context.Context) ([]api.ServiceStatus, error) {
	r, err := c.network.ListServices(ctx, &pb.ListServicesRequest{})
	if err != nil {
		return nil, err
	}
	return all(r.GetServices(), wire.ServiceStatusFromPB), nil
}

// Peers returns the other members as the transport of a node sees them: of the
// one that is asked for "".
func (c *Client) Peers(ctx context.Context, node string) ([]api.Peer, error) {
	r, err := c.network.ListPeers(ctx, &pb.ListPeersRequest{Node: node})
	if err != nil {
		return nil, err
	}
	return all(r.GetPeers(), wire.PeerFromPB), nil
}

// Diagnose examines the network around a node, the one that is asked for "".
func (c *Client) Diagnose(ctx context.Context, node string) ([]api.Check, error) {
	r, err := c.network.Diagnose(ctx, &pb.DiagnoseRequest{Node: node})
	if err != nil {
		return nil, err
	}
	return all(r.GetChecks(), wire.CheckFromPB), nil
}
