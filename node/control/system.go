package control

import (
	"context"

	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

type systemServer struct {
	pb.UnimplementedSystemServiceServer
	*Server
}

func (s *systemServer) GetVersion(context.Context, *pb.GetVersionRequest) (*pb.GetVersionResponse, error) {
	return &pb.GetVersionResponse{Version: wire.VersionToPB(s.cfg.Version)}, nil
}

func (s *systemServer) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	status := s.cfg.Status()
	status.Time = s.cfg.Now()
	return &pb.GetStatusResponse{Status: wire.StatusToPB(status)}, nil
}
