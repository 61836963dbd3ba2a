package client

import (
	"context"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
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

// Sync joins a node to an anchor until ctx ends.
func (c *Client) Sync(ctx context.Context) (*SyncStream, error) {
	s, err := c.sync.Sync(ctx)
	if err != nil {
		return nil, err
	}
	return &SyncStream{s}, nil
}

// SyncStream carries reports to an anchor and views back. One goroutine may
// send while another receives.
type SyncStream struct {
	stream grpc.BidiStreamingClient[pb.SyncRequest, pb.SyncResponse]
}

// Send tells the anchor what the node has and does. It returns io.EOF when the
// stream is over; Recv knows why.
func (s *SyncStream) Send(r api.NodeReport) error {
	return s.stream.Send(&pb.SyncRequest{Report: wire.NodeReportToPB(r)})
}

// Recv waits for the next view. It returns io.EOF when the anchor hung up.
func (s *SyncStream) Recv() (api.ClusterView, error) {
	r, err := s.stream.Recv()
	if err != nil {
		return api.ClusterView{}, err
	}
	return wire.ClusterViewFromPB(r.GetView()), nil
}
