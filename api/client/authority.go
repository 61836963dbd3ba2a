package client

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Authority returns the authority that signs the cluster's certificates.
func (c *Client) Authority(ctx context.Context) (api.AuthorityStatus, error) {
	r, err := c.authority.GetAuthority(ctx, &pb.GetAuthorityRequest{})
	if err != nil {
		return api.AuthorityStatus{}, err
	}
	return wire.AuthorityStatusFromPB(r.GetStatus()), nil
}

// RotateAuthority begins to replace the key of the authority. When that is
// urgent, nobody waits for nodes that are away.
func (c *Client) RotateAuthority(ctx context.Context, urgent bool) (api.AuthorityStatus, error) {
	r, err := c.authority.RotateAuthority(ctx, &pb.RotateAuthorityRequest{Urgent: urgent})
	if err != nil {
		return api.AuthorityStatus{}, err
	}
	return wire.AuthorityStatusFromPB(r.GetStatus()), nil
}
