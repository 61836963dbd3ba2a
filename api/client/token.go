package client

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// CreateToken makes a join token. The text is shown this once: the cluster
// keeps only its hash.
func (c *Client) CreateToken(ctx context.Context, req api.TokenRequest) (text string, record api.Token, err error) {
	r, err := c.tokens.CreateToken(ctx, wire.TokenRequestToPB(req))
	if err != nil {
		return "", api.Token{}, err
	}
	return r.GetToken(), wire.TokenFromPB(r.GetRecord()), nil
}

// Tokens returns the records of the tokens that may still be used.
func (c *Client) Tokens(ctx context.Context) ([]api.Token, error) {
	r, err := c.tokens.ListTokens(ctx, &pb.ListTokensRequest{})
	if err != nil {
		return nil, err
	}
	return all(r.GetTokens(), wire.TokenFromPB), nil
}

// RevokeToken makes a token useless.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := c.tokens.RevokeToken(ctx, &pb.RevokeTokenRequest{Id: id})
	return err
}
