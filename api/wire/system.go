package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// VersionToPB converts the name of a build.
func VersionToPB(v api.Version) *pb.Version {
	return &pb.Version{Version: v.Version, Commit: v.Commit, Go: v.Go, Os: v.OS, Arch: v.Arch}
}

// VersionFromPB converts the name of a build.
func VersionFromPB(p *pb.Version) api.Version {
	return api.Version{Version: p.GetVersion(), Commit: p.GetCommit(), Go: p.GetGo(), OS: p.GetOs(), Arch: p.GetArch()}
}

// StatusToPB converts where the answering node stands.
func StatusToPB(s api.Status) *pb.Status {
	return &pb.Status{
		Node:             string(s.Node),
		Name:             s.Name,
		Ready:            s.Ready,
		Reason:           s.Reason,
		Cluster:          s.Cluster,
		ClusterName:      s.ClusterName,
		Leader:           string(s.Leader),
		LeaderName:       s.LeaderName,
		Anchors:          intToPB(s.Anchors),
		AnchorsReachable: intToPB(s.AnchorsReachable),
		Index:            s.Index,
		Time:             timeToPB(s.Time),
	}
}

// StatusFromPB converts where the answering node stands.
func StatusFromPB(p *pb.Status) api.Status {
	return api.Status{
		Node:             api.NodeID(p.GetNode()),
		Name:             p.GetName(),
		Ready:            p.GetReady(),
		Reason:           p.GetReason(),
		Cluster:          p.GetCluster(),
		ClusterName:      p.GetClusterName(),
		Leader:           api.NodeID(p.GetLeader()),
		LeaderName:       p.GetLeaderName(),
		Anchors:          intFromPB(p.GetAnchors()),
		AnchorsReachable: intFromPB(p.GetAnchorsReachable()),
		Index:            p.GetIndex(),
		Time:             timeFromPB(p.GetTime()),
	}
}
