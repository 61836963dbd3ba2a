package control

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// Authority is the authority that signs the cluster's certificates. It works on
// the leader only.
type Authority interface {
	// AuthorityStatus sums it up as a state has it.
	AuthorityStatus(v state.View) (api.AuthorityStatus, error)
	// RotateAuthority announces the next generation.
	RotateAuthority(ctx context.Context, urgent bool) error
}

type authorityServer struct {
	pb.UnimplementedAuthorityServiceServer
	*Server
}

func (s *authorityServer) GetAuthority(ctx context.Context, _ *pb.GetAuthorityRequest) (*pb.GetAuthorityResponse, error) {
	status, err := s.authority(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.GetAuthorityResponse{Status: status}, nil
}

func (s *authorityServer) RotateAuthority(ctx context.Context, req *pb.RotateAuthorityRequest) (*pb.RotateAuthorityResponse, error) {
	if _, err := s.linearizable(ctx); err != nil {
		return nil, err
	}
	if err := s.cfg.Authority.RotateAuthority(ctx, req.GetUrgent()); err != nil {
		return nil, err
	}
	status, err := s.authority(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.RotateAuthorityResponse{Status: status}, nil
}

func (s *authorityServer) authority(ctx context.Context) (*pb.AuthorityStatus, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	status, err := s.cfg.Authority.AuthorityStatus(view)
	if err != nil {
		return nil, err
	}
	return wire.AuthorityStatusToPB(status), nil
}
