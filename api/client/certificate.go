package client

import (
	"context"

	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// RenewCertificate asks an anchor for a new membership certificate (DER) for
// the caller's own key, which signed the request (PKCS #10, DER).
func (c *Client) RenewCertificate(ctx context.Context, csr []byte) ([]byte, error) {
	r, err := c.sync.RenewCertificate(ctx, &pb.RenewCertificateRequest{Csr: csr})
	if err != nil {
		return nil, err
	}
	return r.GetCertificate(), nil
}
