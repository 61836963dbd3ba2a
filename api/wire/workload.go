package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// WorkloadToPB converts the record of a workload.
func WorkloadToPB(w api.Workload) *pb.Workload {
	return &pb.Workload{
		Name:      w.Name,
		Labels:    w.Labels,
		Spec:      WorkloadSpecToPB(w.Spec),
		Revision:  intToPB(w.Revision),
		CreatedAt: timeToPB(w.CreatedAt),
		UpdatedAt: timeToPB(w.UpdatedAt),
		Deleted:   w.Deleted,
		Version:   w.Version,
	}
}

// WorkloadFromPB converts the record of a workload.
func WorkloadFromPB(p *pb.Workload) api.Workload {
	return api.Workload{
		Name:      p.GetName(),
		Labels:    p.GetLabels(),
		Spec:      WorkloadSpecFromPB(p.GetSpec()),
		Revision:  intFromPB(p.GetRevision()),
		CreatedAt: timeFromPB(p.GetCreatedAt()),
		UpdatedAt: timeFromPB(p.GetUpdatedAt()),
		Deleted:   p.GetDeleted(),
		Version:   p.GetVersion(),
	}
}

// WorkloadStatusToPB converts a workload and how it is doing.
func WorkloadStatusToPB(w api.WorkloadStatus) *pb.WorkloadStatus {
	return &pb.WorkloadStatus{
		Workload: WorkloadToPB(w.Workload),
		State:    string(w.State),
		Running:  intToPB(w.Running),
		Ready:    intToPB(w.Ready),
		Message:  w.Message,
		Replicas: list(w.Replicas, ReplicaToPB),
		Rollout:  rolloutToPB(w.Rollout),

		StaleSince: timeToPB(w.StaleSince),
	}
}

// WorkloadStatusFromPB converts a workload and how it is doing.
func WorkloadStatusFromPB(p *pb.WorkloadStatus) api.WorkloadStatus {
	return api.WorkloadStatus{
		Workload: WorkloadFromPB(p.GetWorkload()),
		State:    api.WorkloadState(p.GetState()),
		Running:  intFromPB(p.GetRunning()),
		Ready:    intFromPB(p.GetReady()),
		Message:  p.GetMessage(),
		Replicas: list(p.GetReplicas(), ReplicaFromPB),
		Rollout:  rolloutFromPB(p.GetRollout()),

		StaleSince: timeFromPB(p.GetStaleSince()),
	}
}

func rolloutToPB(r *api.Rollout) *pb.Rollout {
	if r == nil {
		return nil
	}
	return &pb.Rollout{
		State: string(r.State), Revision: intToPB(r.Revision), From: intToPB(r.From),
		Updated: intToPB(r.Updated), Outdated: intToPB(r.Outdated), Message: r.Message,
	}
}

func rolloutFromPB(p *pb.Rollout) *api.Rollout {
	if p == nil {
		return nil
	}
	return &api.Rollout{
		State: api.RolloutState(p.GetState()), Revision: intFromPB(p.GetRevision()), From: intFromPB(p.GetFrom()),
		Updated: intFromPB(p.GetUpdated()), Outdated: intFromPB(p.GetOutdated()), Message: p.GetMessage(),
	}
}

// ApplyRequestToPB converts the wish for a workload.
func ApplyRequestToPB(r api.ApplyRequest) *pb.ApplyWorkloadRequest {
	return &pb.ApplyWorkloadRequest{
		Name:           r.Name,
		Labels:         r.Labels,
		Spec:           WorkloadSpecToPB(r.Spec),
		DryRun:         r.DryRun,
		ExpectVersion:  r.ExpectVersion,
		IdempotencyKey: r.IdempotencyKey,
	}
}

// ApplyRequestFromPB converts the wish for a workload.
func ApplyRequestFromPB(p *pb.ApplyWorkloadRequest) api.ApplyRequest {
	return api.ApplyRequest{
		Name:           p.GetName(),
		Labels:         p.GetLabels(),
		Spec:           WorkloadSpecFromPB(p.GetSpec()),
		DryRun:         p.GetDryRun(),
		ExpectVersion:  p.GetExpectVersion(),
		IdempotencyKey: p.GetIdempotencyKey(),
	}
}

// ExplanationToPB converts the reasons for a placement.
func ExplanationToPB(e api.Explanation) *pb.Explanation {
	return &pb.Explanation{
		Workload: e.Workload,
		Replica:  string(e.Replica),
		Summary:  e.Summary,
		Verdicts: list(e.Verdicts, verdictToPB),
	}
}

// ExplanationFromPB converts the reasons for a placement.
func ExplanationFromPB(p *pb.Explanation) api.Explanation {
	return api.Explanation{
		Workload: p.GetWorkload(),
		Replica:  api.ReplicaID(p.GetReplica()),
		Summary:  p.GetSummary(),
		Verdicts: list(p.GetVerdicts(), verdictFromPB),
	}
}

func verdictToPB(v api.Verdict) *pb.Verdict {
	return &pb.Verdict{
		Node:     string(v.Node),
		NodeName: v.NodeName,
		Feasible: v.Feasible,
		Reasons:  v.Reasons,
		Terms:    v.Terms,
		Total:    v.Total,
		Chosen:   v.Chosen,
	}
}

func verdictFromPB(p *pb.Verdict) api.Verdict {
	return api.Verdict{
		Node:     api.NodeID(p.GetNode()),
		NodeName: p.GetNodeName(),
		Feasible: p.GetFeasible(),
		Reasons:  p.GetReasons(),
		Terms:    p.GetTerms(),
		Total:    p.GetTotal(),
		Chosen:   p.GetChosen(),
	}
}
