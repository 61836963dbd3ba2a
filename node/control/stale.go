package control

import (
	"context"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// staleAfter is how long no anchor must have been heard for what a node knows to
// be old: sync notices a dead connection within half a minute, and says before
// that every two seconds that it lives.
const staleAfter = 30 * time.Second

// recallable are the reads that a node answers from what it knew last, to who
// asks for that, while no anchor can be reached.
var recallable = map[string]bool{
	pb.NodeService_ListNodes_FullMethodName:         true,
	pb.NodeService_GetNode_FullMethodName:           true,
	pb.WorkloadService_ListWorkloads_FullMethodName: true,
	pb.WorkloadService_GetWorkload_FullMethodName:   true,
}

// allowsStale reports whether a call may be answered like that. One that another
// node carries may not: that node knows as much.
func allowsStale(ctx context.Context, c *Caller, method string) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(api.AllowStale)
	return recallable[method] && c.Via == "" && len(values) == 1 && values[0] == "1"
}

type recalledKey struct{}

// recall answers a read from what this node knew last. What it does not know
// proves nothing: then why is the answer.
func (s *Server) recall(ctx context.Context, c *Caller, req any, handler grpc.UnaryHandler, why error) (any, error) {
	view, ok := s.lastState()
	if !ok || ctx.Err() != nil {
		return nil, why
	}
	ctx = context.WithValue(context.WithValue(ctx, callerKey{}, c), recalledKey{}, view)
	reply, err := handler(ctx, req)
	if err != nil {
		return nil, why
	}
	since := s.cfg.InStep()
	s.cfg.Log.Debug("answered from what was known last", zap.Time("since", since), zap.Error(why))
	s.localise(reply)
	markStale(ctx, reply, since)
	return reply, nil
}

// lastState is the newest state that this node has: an anchor's own copy, or
// what the last view tells.
func (s *Server) lastState() (state.View, bool) {
	last := s.cfg.View()
	if s.cfg.Anchor != nil {
		own := s.cfg.Anchor.Store().View()
		if c, ok := own.Cluster(); ok && c.Epoch >= last.Cluster.Epoch && own.Index() >= last.Index {
			return own, true
		}
	}
	if last.Cluster.ID == "" {
		return state.View{}, false
	}
	return state.Recall(last), true
}

// markStale says in an answer as of when it is: in the headers, and in each row.
func markStale(ctx context.Context, reply any, since time.Time) {
	// Without a transport, in tests, nobody reads them.
	_ = grpc.SetHeader(ctx, metadata.Pairs(api.StaleSince, since.UTC().Format(time.RFC3339Nano)))
	at := timestamppb.New(since)
	switch r := reply.(type) {
	case *pb.ListNodesResponse:
		for _, n := range r.GetNodes() {
			n.StaleSince = at
		}
	case *pb.GetNodeResponse:
		r.GetNode().StaleSince = at
	case *pb.ListWorkloadsResponse:
		for _, w := range r.GetWorkloads() {
			w.StaleSince = at
		}
	case *pb.GetWorkloadResponse:
		r.GetWorkload().StaleSince = at
	case *pb.ListServicesResponse:
		for _, svc := range r.GetServices() {
			svc.StaleSince = at
		}
	}
}
