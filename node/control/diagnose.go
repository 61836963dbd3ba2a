package control

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

func (s *networkServer) Diagnose(ctx context.Context, req *pb.DiagnoseRequest) (*pb.DiagnoseResponse, error) {
	if to, err := s.meant(ctx, req.GetNode()); err != nil {
		return nil, err
	} else if to != s.cfg.Self.ID {
		return askNode[*pb.DiagnoseResponse](ctx, s.Server, to, pb.NetworkService_Diagnose_FullMethodName, req)
	}
	reply := &pb.DiagnoseResponse{}
	for _, c := range s.cfg.Diagnose(ctx) {
		reply.Checks = append(reply.Checks, wire.CheckToPB(c))
	}
	return reply, nil
}

// meant returns the node that a name or an ID means, this one for "". It
// answers from the last view, so that it works when no anchor does.
func (s *Server) meant(ctx context.Context, key string) (api.NodeID, error) {
	if key == "" {
		return s.cfg.Self.ID, nil
	}
	for _, n := range s.cfg.View().Nodes {
		if n.Inventory.Name != key && string(n.ID) != key {
			continue
		}
		if c := caller(ctx); n.ID != s.cfg.Self.ID && c != nil && c.Via != "" {
			return "", api.Errorf(api.KindConflict, "node %s is another one than %s", key, s.nodeName(s.cfg.Self.ID)).WithHint("try again")
		}
		return n.ID, nil
	}
	return "", api.Errorf(api.KindNotFound, "there is no node %q", key).WithHint("see the nodes with: cloudless node list")
}

// askNode has another node answer a call that every node answers for itself.
func askNode[Reply proto.Message](ctx context.Context, s *Server, to api.NodeID, method string, req proto.Message) (Reply, error) {
	var none Reply
	reply, err := s.pool.forwardUnary(ctx, to, caller(ctx), method, req)
	if err != nil {
		return none, s.elsewhere(ctx, to, method, err)
	}
	typed, ok := reply.(Reply)
	if !ok {
		return none, api.Errorf(api.KindInternal, "node %s answers %s with a %T", s.nodeName(to), method, reply)
	}
	return typed, nil
}
