package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// ReplicaToPB converts one generation of a slot.
func ReplicaToPB(r api.Replica) *pb.Replica {
	return &pb.Replica{
		Id:         string(r.ID),
		Workload:   r.Workload,
		Slot:       intToPB(r.Slot),
		Generation: intToPB(r.Generation),
		Revision:   intToPB(r.Revision),
		Spec:       WorkloadSpecToPB(r.Spec),
		Node:       string(r.Node),
		Desired:    string(r.Desired),
		State:      string(r.State),
		Reason:     r.Reason,
		Decision:   r.Decision,
		Restarts:   intToPB(r.Restarts),
		Address:    r.Address,
		CreatedAt:  timeToPB(r.CreatedAt),
		StartedAt:  timeToPB(r.StartedAt),
		ChangedAt:  timeToPB(r.ChangedAt),
		Version:    r.Version,
	}
}

// ReplicaFromPB converts one generation of a slot.
func ReplicaFromPB(p *pb.Replica) api.Replica {
	return api.Replica{
		ID:         api.ReplicaID(p.GetId()),
		Workload:   p.GetWorkload(),
		Slot:       intFromPB(p.GetSlot()),
		Generation: intFromPB(p.GetGeneration()),
		Revision:   intFromPB(p.GetRevision()),
		Spec:       WorkloadSpecFromPB(p.GetSpec()),
		Node:       api.NodeID(p.GetNode()),
		Desired:    api.Desired(p.GetDesired()),
		State:      api.ReplicaState(p.GetState()),
		Reason:     p.GetReason(),
		Decision:   p.GetDecision(),
		Restarts:   intFromPB(p.GetRestarts()),
		Address:    p.GetAddress(),
		CreatedAt:  timeFromPB(p.GetCreatedAt()),
		StartedAt:  timeFromPB(p.GetStartedAt()),
		ChangedAt:  timeFromPB(p.GetChangedAt()),
		Version:    p.GetVersion(),
	}
}

// ReplicaReportToPB converts a node's word on a replica.
func ReplicaReportToPB(r api.ReplicaReport) *pb.ReplicaReport {
	return &pb.ReplicaReport{
		Id:        string(r.ID),
		State:     string(r.State),
		Reason:    r.Reason,
		Restarts:  intToPB(r.Restarts),
		Address:   r.Address,
		StartedAt: timeToPB(r.StartedAt),
	}
}

// ReplicaReportFromPB converts a node's word on a replica.
func ReplicaReportFromPB(p *pb.ReplicaReport) api.ReplicaReport {
	return api.ReplicaReport{
		ID:        api.ReplicaID(p.GetId()),
		State:     api.ReplicaState(p.GetState()),
		Reason:    p.GetReason(),
		Restarts:  intFromPB(p.GetRestarts()),
		Address:   p.GetAddress(),
		StartedAt: timeFromPB(p.GetStartedAt()),
	}
}
