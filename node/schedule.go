package node

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/sched"
	"github.com/cloudless-project/cloudless/sched/place"
	"github.com/cloudless-project/cloudless/sched/reconcile"
)

// scheduleSource is the authoritative state as the scheduler sees it.
type scheduleSource struct{ raft *office }

// Watch implements sched.Source.
func (s scheduleSource) Watch() (reconcile.Input, <-chan struct{}) {
	view, changed := s.raft.Store().Watch()
	return scheduleInput(view), changed
}

// Commit implements sched.Source.
func (s scheduleSource) Commit(ctx context.Context, p reconcile.Plan) error {
	stop := make([]state.StopReplica, len(p.Stop))
	for i, r := range p.Stop {
		stop[i] = state.StopReplica{ID: r.ID, Reason: r.Reason}
	}
	_, err := s.raft.Propose(ctx, state.CommitPlan{
		Index:    p.Index,
		Place:    state.Placements(p.Place),
		Promote:  p.Promote,
		Drop:     p.Drop,
		Stop:     stop,
		Forget:   p.Forget,
		Unplaced: p.Unplaced,
		Now:      time.Now(),
	})
	return err
}

func scheduleInput(v state.View) reconcile.Input {
	in := reconcile.Input{
		Index:     v.Index(),
		Nodes:     v.Nodes(),
		Workloads: v.Workloads(),
		Replicas:  v.Replicas(),
		Images:    v.Images(),
		Unplaced:  make(map[string]string),
	}
	for _, w := range in.Workloads {
		if reason := v.Unplaced(w.Name); reason != "" {
			in.Unplaced[w.Name] = reason
		}
	}
	return in
}

// explain puts what the scheduler thinks into words for a person.
func explain(v state.View, target string, now time.Time) (api.Explanation, error) {
	in := scheduleInput(v)
	in.Now = now
	e, err := sched.Explain(in, target)
	if err != nil {
		return api.Explanation{}, err
	}
	out := api.Explanation{Workload: e.Workload, Summary: summary(e)}
	if target != e.Workload {
		out.Replica = api.ReplicaID(target)
	}
	here := make(map[api.NodeID]bool)
	for _, r := range e.Replicas {
		here[r.Node] = true
	}
	for _, n := range e.Nodes {
		out.Verdicts = append(out.Verdicts, verdict(n, here[n.Node]))
	}
	return out, nil
}

func summary(e sched.Explanation) string {
	switch {
	case e.Lacks != "":
		return e.Lacks
	case len(e.Replicas) == 1:
		r := e.Replicas[0]
		return fmt.Sprintf("%s is on %s: %s", r.Replica, r.NodeName, r.Decision)
	case e.Desired == 1:
		return fmt.Sprintf("%d of 1 replica is placed", len(e.Replicas))
	default:
		return fmt.Sprintf("%d of %d replicas are placed", len(e.Replicas), e.Desired)
	}
}

func verdict(n place.Verdict, chosen bool) api.Verdict {
	return api.Verdict{
		Node: n.Node, NodeName: n.Name, Feasible: n.Fits, Reasons: n.Faults, Total: n.Score, Chosen: chosen,
		Terms: map[string]float64{
			"locality":    n.Terms.Locality,
			"reliability": n.Terms.Reliability,
			"cost":        n.Terms.Cost,
			"utilisation": n.Terms.Utilisation,
			"network":     n.Terms.Network,
		},
	}
}
