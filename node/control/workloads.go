package control

import (
	"context"
	"reflect"
	"strings"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type workloadServer struct {
	pb.UnimplementedWorkloadServiceServer
	*Server
}

// ApplyWorkload is idempotent by nature: the same spec again changes nothing.
// With a key, the answer is the same as well.
func (s *workloadServer) ApplyWorkload(ctx context.Context, req *pb.ApplyWorkloadRequest) (*pb.ApplyWorkloadResponse, error) {
	key, err := answerKey(caller(ctx), pb.WorkloadService_ApplyWorkload_FullMethodName, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	if given, ok := s.answers.recall(key, s.cfg.Now()); ok && key != "" {
		if reply, ok := given.(*pb.ApplyWorkloadResponse); ok {
			return reply, nil
		}
	}
	reply, err := s.applyWorkload(ctx, req)
	if err == nil && key != "" {
		s.answers.remember(key, reply, s.cfg.Now())
	}
	return reply, err
}

func (s *workloadServer) applyWorkload(ctx context.Context, req *pb.ApplyWorkloadRequest) (*pb.ApplyWorkloadResponse, error) {
	r := wire.ApplyRequestFromPB(req)
	if err := api.ValidateName("metadata.name", r.Name); err != nil {
		return nil, err
	}
	r.Spec.SetDefaults()
	if err := r.Spec.Validate("spec"); err != nil {
		return nil, err
	}
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	old, exists := view.Workload(r.Name)
	outcome := api.OutcomeCreated
	switch {
	case exists && old.Deleted:
		return nil, api.Errorf(api.KindConflict, "workload %s is still being deleted", r.Name).WithHint("try again in a moment")
	case exists && reflect.DeepEqual(old.Spec, r.Spec) && sameLabels(old.Labels, r.Labels):
		outcome = api.OutcomeUnchanged
	case exists:
		outcome = api.OutcomeChanged
	}
	w := api.Workload{Name: r.Name, Labels: r.Labels, Spec: r.Spec, Revision: 1}
	if exists {
		w = old
	}
	if !r.DryRun && outcome != api.OutcomeUnchanged {
		w, err = propose[api.Workload](ctx, s.Server, state.PutWorkload{
			Name: r.Name, Labels: r.Labels, Spec: r.Spec, ExpectVersion: r.ExpectVersion, Now: s.cfg.Now(),
		})
		if err != nil {
			return nil, err
		}
	}
	return &pb.ApplyWorkloadResponse{
		Workload: wire.WorkloadStatusToPB(workloadStatus(s.cfg.Anchor.Store().View(), w)),
		Outcome:  string(outcome),
	}, nil
}

func sameLabels(a, b map[string]string) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

func (s *workloadServer) ListWorkloads(ctx context.Context, _ *pb.ListWorkloadsRequest) (*pb.ListWorkloadsResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	reply := &pb.ListWorkloadsResponse{}
	for _, w := range view.Workloads() {
		st := workloadStatus(view, w)
		st.Replicas = nil
		reply.Workloads = append(reply.Workloads, wire.WorkloadStatusToPB(st))
	}
	return reply, nil
}

func (s *workloadServer) GetWorkload(ctx context.Context, req *pb.GetWorkloadRequest) (*pb.GetWorkloadResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	w, err := findWorkload(view, req.GetName())
	if err != nil {
		return nil, err
	}
	return &pb.GetWorkloadResponse{Workload: wire.WorkloadStatusToPB(workloadStatus(view, w))}, nil
}

func (s *workloadServer) DeleteWorkload(ctx context.Context, req *pb.DeleteWorkloadRequest) (*pb.DeleteWorkloadResponse, error) {
	_, err := propose[any](ctx, s.Server, state.DeleteWorkload{
		Name: req.GetName(), ExpectVersion: req.GetExpectVersion(), Now: s.cfg.Now(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.DeleteWorkloadResponse{}, nil
}

func (s *workloadServer) ScaleWorkload(ctx context.Context, req *pb.ScaleWorkloadRequest) (*pb.ScaleWorkloadResponse, error) {
	w, err := propose[api.Workload](ctx, s.Server, state.ScaleWorkload{
		Name: req.GetName(), Replicas: int(req.GetReplicas()), ExpectVersion: req.GetExpectVersion(), Now: s.cfg.Now(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.ScaleWorkloadResponse{Workload: wire.WorkloadStatusToPB(workloadStatus(s.cfg.Anchor.Store().View(), w))}, nil
}

func (s *workloadServer) RestartWorkload(ctx context.Context, req *pb.RestartWorkloadRequest) (*pb.RestartWorkloadResponse, error) {
	w, err := propose[api.Workload](ctx, s.Server, state.RestartWorkload{
		Name: req.GetName(), ExpectVersion: req.GetExpectVersion(), Now: s.cfg.Now(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.RestartWorkloadResponse{Workload: wire.WorkloadStatusToPB(workloadStatus(s.cfg.Anchor.Store().View(), w))}, nil
}

func (s *workloadServer) ExplainWorkload(ctx context.Context, req *pb.ExplainWorkloadRequest) (*pb.ExplainWorkloadResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(req.GetTarget(), ".")
	if _, err := findWorkload(view, name); err != nil {
		return nil, err
	}
	e, err := s.cfg.Explain(view, req.GetTarget())
	if err != nil {
		return nil, err
	}
	return &pb.ExplainWorkloadResponse{Explanation: wire.ExplanationToPB(e)}, nil
}

func findWorkload(view state.View, name string) (api.Workload, error) {
	w, ok := view.Workload(name)
	if !ok {
		return api.Workload{}, api.Errorf(api.KindNotFound, "there is no workload %q", name).
			WithHint("see the workloads with: cloudless workload list")
	}
	return w, nil
}
