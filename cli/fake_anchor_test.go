package cli

import (
	"context"
	"io"

	"google.golang.org/grpc"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/security/identity"
)

// ListAnchors shows the anchors; every look brings them nearer to what was
// asked for.
func (f *fakeNode) ListAnchors(context.Context, *pb.ListAnchorsRequest) (*pb.ListAnchorsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &pb.ListAnchorsResponse{}
	var left []api.AnchorStatus
	for _, a := range f.anchors {
		r.Anchors = append(r.Anchors, wire.AnchorToPB(a))
		switch a.Standing {
		case api.AnchorLeaving:
			continue
		case api.AnchorJoining:
			a.Standing = api.AnchorStandby
		}
		left = append(left, a)
	}
	f.anchors = left
	return r, nil
}

func (f *fakeNode) SetAnchorPolicy(_ context.Context, r *pb.SetAnchorPolicyRequest) (*pb.SetAnchorPolicyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(r.GetNode())
	if err != nil {
		return nil, err
	}
	for i := range f.anchors {
		if a := &f.anchors[i]; a.ID == n.ID {
			a.Policy, a.Standing = api.AnchorPolicy(r.GetPolicy()), api.AnchorJoining
			if a.Policy == api.AnchorNever {
				a.Standing = api.AnchorLeaving
			}
		}
	}
	return &pb.SetAnchorPolicyResponse{Id: string(n.ID), Name: n.Inventory.Name}, nil
}

func (f *fakeNode) TransferLeadership(_ context.Context, r *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(r.GetNode())
	if err != nil {
		return nil, err
	}
	return &pb.TransferLeadershipResponse{Id: string(n.ID), Name: n.Inventory.Name}, nil
}

func (f *fakeNode) Backup(r *pb.BackupRequest, stream grpc.ServerStreamingServer[pb.BackupResponse]) error {
	authority, err := identity.NewAuthority("home", noon)
	if err != nil {
		return err
	}
	w := sendBackup{stream}
	return authority.WriteBackup(w, identity.BackupHeader{Cluster: "c1", Name: "home", CreatedAt: noon, Salt: r.GetSalt()}, r.GetKey(), func(w io.Writer) error {
		_, err := io.WriteString(w, "state\n")
		return err
	})
}

type sendBackup struct {
	stream grpc.ServerStreamingServer[pb.BackupResponse]
}

func (s sendBackup) Write(p []byte) (int, error) {
	return len(p), s.stream.Send(&pb.BackupResponse{Data: p})
}
