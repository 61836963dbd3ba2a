package cli

import (
	"context"
	"io"
	"time"

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

// SetRecoveryKey finds one in place already.
func (f *fakeNode) SetRecoveryKey(_ context.Context, r *pb.SetRecoveryKeyRequest) (*pb.SetRecoveryKeyResponse, error) {
	if err := identity.CheckRecoveryPublic(r.GetPublic()); err != nil {
		return nil, err
	}
	if !r.GetReplace() {
		return nil, api.Errorf(api.KindExists, "the cluster has a recovery key").WithHint("replace it with: cloudless anchor recovery-key --replace")
	}
	return &pb.SetRecoveryKeyResponse{}, nil
}

// ListSnapshots has two, of which the newer one cannot be fetched.
func (f *fakeNode) ListSnapshots(context.Context, *pb.ListSnapshotsRequest) (*pb.ListSnapshotsResponse, error) {
	r := &pb.ListSnapshotsResponse{}
	for i, name := range []string{"pi", "nas"} {
		r.Snapshots = append(r.Snapshots, wire.SnapshotToPB(api.Snapshot{
			Node: api.NodeID(name), NodeName: name, Epoch: 0, Index: uint64(90 - i), Size: 24 << 10,
			CreatedAt: noon.Add(-time.Duration(3+i) * time.Minute), Key: "00112233aabbccdd",
		}))
	}
	return r, nil
}

func (f *fakeNode) FetchSnapshot(r *pb.FetchSnapshotRequest, stream grpc.ServerStreamingServer[pb.FetchSnapshotResponse]) error {
	if r.GetNode() == "pi" {
		return api.Errorf(api.KindUnavailable, "pi does not answer")
	}
	authority, err := identity.NewAuthority("home", noon)
	if err != nil {
		return err
	}
	key, err := identity.NewRecoveryKey()
	if err != nil {
		return err
	}
	h := identity.BackupHeader{Cluster: "c1", Name: "home", CreatedAt: noon}
	secret, err := h.SealTo(key.Public())
	if err != nil {
		return err
	}
	h.Recovery = "00112233aabbccdd" // the same in every run
	return authority.WriteBackup(sendSnapshot{stream}, h, secret, func(w io.Writer) error {
		_, err := io.WriteString(w, "state\n")
		return err
	})
}

type sendSnapshot struct {
	stream grpc.ServerStreamingServer[pb.FetchSnapshotResponse]
}

func (s sendSnapshot) Write(p []byte) (int, error) {
	return len(p), s.stream.Send(&pb.FetchSnapshotResponse{Data: p})
}
