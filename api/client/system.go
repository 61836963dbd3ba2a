package client

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Version names the build that the node runs.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	r, err := c.system.GetVersion(ctx, &pb.GetVersionRequest{})
	if err != nil {
		return api.Version{}, err
	}
	return wire.VersionFromPB(r.GetVersion()), nil
}

// Status says where the node stands.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	r, err := c.system.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		return api.Status{}, err
	}
	return wire.StatusFromPB(r.GetStatus()), nil
}
