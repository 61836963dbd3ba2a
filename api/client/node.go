package client

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Nodes returns every node, by name.
func (c *Client) Nodes(ctx context.Context) ([]api.NodeStatus, error) {
	r, err := c.nodes.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		return nil, err
	}
	return all(r.GetNodes(), wire.NodeStatusFromPB), nil
}

// Node returns one node, given its name or ID.
func (c *Client) Node(ctx context.Context, node string) (api.NodeStatus, error) {
	r, err := c.nodes.GetNode(ctx, &pb.GetNodeRequest{Node: node})
	if err != nil {
		return api.NodeStatus{}, err
	}
	return wire.NodeStatusFromPB(r.GetNode()), nil
}

// UpdateNode cordons, uncordons or labels a node and returns it as it is then.
func (c *Client) UpdateNode(ctx context.Context, update api.NodeUpdate) (api.NodeStatus, error) {
	r, err := c.nodes.UpdateNode(ctx, wire.NodeUpdateToPB(update))
	if err != nil {
		return api.NodeStatus{}, err
	}
	return wire.NodeStatusFromPB(r.GetNode()), nil
}

// RemoveNode revokes a node, given its name or ID, for good.
func (c *Client) RemoveNode(ctx context.Context, node, reason string) error {
	_, err := c.nodes.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: node, Reason: reason})
	return err
}

// all converts every element of an answer.
func all[P, A any](in []P, convert func(P) A) []A {
	out := make([]A, len(in))
	for i, p := range in {
		out[i] = convert(p)
	}
	return out
}
