package control

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type syncServer struct {
	pb.UnimplementedSyncServiceServer
	*Server
}

// Sync takes a node's reports in and sends it the view whenever it changed.
// The first view follows the first report, so that what a node runs is known
// before it is told what to do.
func (s *syncServer) Sync(stream pb.SyncService_SyncServer) error {
	c := caller(stream.Context())
	if c.Via != "" {
		return api.Errorf(api.KindDenied, "a node syncs in its own name")
	}
	if err := s.takeReport(stream, c.Member.ID); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() {
		for {
			if err := s.takeReport(stream, c.Member.ID); err != nil {
				cancel(err)
				return
			}
		}
	}()
	err := s.sendViews(ctx, stream, c.Member.ID)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, io.EOF) {
		return cause
	}
	return err
}

func (s *syncServer) takeReport(stream pb.SyncService_SyncServer, from api.NodeID) error {
	msg, err := stream.Recv()
	if err != nil {
		return err
	}
	report := wire.NodeReportFromPB(msg.GetReport())
	if report.Node != from {
		return api.Errorf(api.KindDenied, "node %s reports for %s", from, report.Node)
	}
	unstable := s.cfg.Heard(from, report.Incarnation)
	_, err = propose[any](stream.Context(), s.Server, state.ReportNode{Report: report, Unstable: unstable, Now: s.cfg.Now()})
	return err
}

// coalesce is how long a change may wait for others to travel with it.
const coalesce = 10 * time.Millisecond

// sendViews sends the whole view once, and then what changes in it.
func (s *syncServer) sendViews(ctx context.Context, stream pb.SyncService_SyncServer, to api.NodeID) error {
	var last api.ClusterView
	first := true
	store := s.cfg.Anchor.Store() // another one follows when this node becomes an anchor anew
	for {
		view, changed := store.Watch()
		now := view.For(to, s.cfg.Self.ID)
		reply := &pb.SyncResponse{}
		if delta := last.DeltaTo(now); first {
			reply.View = wire.ClusterViewToPB(now)
		} else if !delta.Empty(&last) {
			reply.Delta = wire.ViewDeltaToPB(delta)
		}
		if reply.View != nil || reply.Delta != nil {
			if err := stream.Send(reply); err != nil {
				return err
			}
			last, first = now, false
		}
		if err := s.waitLeading(ctx, changed); err != nil {
			return err
		}
		if err := retry.Sleep(ctx, coalesce); err != nil {
			return err
		}
	}
}

// waitLeading waits for a change of the state. It fails when this anchor does
// not lead any more, because what it has may be old.
func (s *Server) waitLeading(ctx context.Context, changed <-chan struct{}) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if !s.cfg.Anchor.IsLeader() {
				return api.Errorf(api.KindUnavailable, "this anchor does not lead any more")
			}
		}
	}
}

// RegisterImage records an image of which the calling node holds every blob.
func (s *syncServer) RegisterImage(ctx context.Context, req *pb.RegisterImageRequest) (*pb.RegisterImageResponse, error) {
	img := wire.ImageFromPB(req.GetImage())
	img.Holders = []api.NodeID{caller(ctx).Member.ID}
	recorded, err := propose[api.Image](ctx, s.Server, state.PutImage{Image: img, Now: s.cfg.Now()})
	if err != nil {
		return nil, err
	}
	return &pb.RegisterImageResponse{Image: wire.ImageToPB(recorded)}, nil
}

// rolesOf returns the roles that a node's certificate says it has.
func rolesOf(n api.Node) []api.Role {
	if n.HoldsState() {
		return []api.Role{api.RoleNode, api.RoleAnchor}
	}
	return []api.Role{api.RoleNode}
}

// RenewCertificate gives a member a new certificate for the key that it has: a
// node with the roles that the state gives it, a person with the same as before.
func (s *syncServer) RenewCertificate(ctx context.Context, req *pb.RenewCertificateRequest) (*pb.RenewCertificateResponse, error) {
	c := caller(ctx)
	if c.UID >= 0 {
		return nil, api.Errorf(api.KindDenied, "a local user has no certificate to renew")
	}
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	if view.Revoked(c.Member.ID) {
		return nil, api.Errorf(api.KindDenied, "the identity %s was revoked", c.Member.ID)
	}
	member := c.Member
	if member.Has(api.RoleNode) {
		n, ok := view.Node(member.ID)
		if !ok {
			return nil, api.Errorf(api.KindDenied, "%s is not a node of this cluster", member.ID)
		}
		member.Roles = rolesOf(n)
	}
	cert, err := s.cfg.Issue(req.GetCsr(), member)
	if err != nil {
		return nil, err
	}
	return &pb.RenewCertificateResponse{Certificate: cert}, nil
}
