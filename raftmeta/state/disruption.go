package state

import (
	"maps"
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// checkDisruption refuses to stop serving replicas of a workload when fewer
// than its minAvailable would be left. It is the one place where drain,
// rollout and replacement meet, so they share one budget.
func (c CommitPlan) checkDisruption(t *tx) error {
	stops := map[string]map[api.ReplicaID]bool{}
	for _, s := range c.Stop {
		r := replicas.get(t.txn, string(s.ID))
		if r == nil {
			continue
		}
		if stops[r.Workload] == nil {
			stops[r.Workload] = map[api.ReplicaID]bool{}
		}
		stops[r.Workload][r.ID] = true
	}
	for _, name := range slices.Sorted(maps.Keys(stops)) {
		w := workloads.get(t.txn, name)
		if w == nil || w.Deleted {
			continue
		}
		before, after := 0, 0
		for _, r := range replicas.list(t.txn, "slot", pair(name, "")) {
			if !t.serves(r) {
				continue
			}
			before++
			if !stops[name][r.ID] {
				after++
			}
		}
		if least := minAvailable(&w.Spec); after < before && after < least {
			return stale("workload %s would have %s serving, and needs %d", name, countReplicas(after), least)
		}
	}
	return nil
}

// serves reports whether a replica takes traffic and is meant to go on.
func (t *tx) serves(r *api.Replica) bool {
	if r.State != api.ReplicaReady || r.Desired != api.DesiredRun {
		return false
	}
	n := nodes.get(t.txn, string(r.Node))
	return n != nil && (n.State == api.NodeReady || n.State == api.NodeDraining)
}

// minAvailable is never more than the workload's replicas. The default leaves
// one replica to be disrupted, but one to serve.
func minAvailable(s *api.WorkloadSpec) int {
	if s.Update.MinAvailable != nil {
		return min(*s.Update.MinAvailable, s.Replicas)
	}
	if s.Replicas > 1 {
		return s.Replicas - 1
	}
	return 0
}
