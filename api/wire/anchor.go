package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// AnchorToPB converts an anchor as the leader sees it.
func AnchorToPB(a api.AnchorStatus) *pb.Anchor {
	return &pb.Anchor{
		Id:        string(a.ID),
		Name:      a.Name,
		Standing:  string(a.Standing),
		State:     string(a.State),
		Policy:    string(a.Policy),
		Reachable: a.Reachable,
		Applied:   a.Applied,
		Behind:    a.Behind,
		Epoch:     a.Epoch,
		Problem:   a.Problem,

		Authority:        authorityUseToPB(a.Authority),
		ClusterAuthority: intToPB(a.ClusterAuthority),
	}
}

// AnchorFromPB converts an anchor as the leader sees it.
func AnchorFromPB(p *pb.Anchor) api.AnchorStatus {
	return api.AnchorStatus{
		ID:        api.NodeID(p.GetId()),
		Name:      p.GetName(),
		Standing:  api.AnchorStanding(p.GetStanding()),
		State:     api.NodeState(p.GetState()),
		Policy:    api.AnchorPolicy(p.GetPolicy()),
		Reachable: p.GetReachable(),
		Applied:   p.GetApplied(),
		Behind:    p.GetBehind(),
		Epoch:     p.GetEpoch(),
		Problem:   p.GetProblem(),

		Authority:        authorityUseFromPB(p.GetAuthority()),
		ClusterAuthority: intFromPB(p.GetClusterAuthority()),
	}
}

// AnchorProgressToPB converts what a node says of its copy of the log.
func AnchorProgressToPB(a api.AnchorProgress) *pb.GetProgressResponse {
	return &pb.GetProgressResponse{
		Running: a.Running, Epoch: a.Epoch, Applied: a.Applied, Leader: string(a.Leader), Problem: a.Problem, Lost: a.Lost,
	}
}

// AnchorProgressFromPB converts what a node says of its copy of the log.
func AnchorProgressFromPB(p *pb.GetProgressResponse) api.AnchorProgress {
	return api.AnchorProgress{
		Running: p.GetRunning(), Epoch: p.GetEpoch(), Applied: p.GetApplied(), Leader: api.NodeID(p.GetLeader()),
		Problem: p.GetProblem(), Lost: p.GetLost(),
	}
}

// SnapshotToPB converts a sealed snapshot that a node keeps.
func SnapshotToPB(s api.Snapshot) *pb.Snapshot {
	return &pb.Snapshot{
		Node: string(s.Node), NodeName: s.NodeName, Epoch: s.Epoch, Index: s.Index, Size: s.Size, CreatedAt: timeToPB(s.CreatedAt), Key: s.Key,
	}
}

// SnapshotFromPB converts a sealed snapshot that a node keeps.
func SnapshotFromPB(p *pb.Snapshot) api.Snapshot {
	return api.Snapshot{
		Node: api.NodeID(p.GetNode()), NodeName: p.GetNodeName(), Epoch: p.GetEpoch(), Index: p.GetIndex(), Size: p.GetSize(),
		CreatedAt: timeFromPB(p.GetCreatedAt()), Key: p.GetKey(),
	}
}
