package state

import (
	"github.com/cloudless-project/cloudless/api"
)

// Recall returns as much of the state as a node knows from its last view of the
// cluster. Of a workload that is what its replicas tell: one without any is not
// known, and only the node that runs a replica has the spec.
func Recall(v api.ClusterView) View {
	s := New()
	t := &tx{txn: s.db.Txn(true), index: v.Index}
	defer t.txn.Abort() // does nothing after Commit
	if v.Cluster.ID != "" {
		clusters.put(t, &v.Cluster)
	}
	for _, n := range v.Nodes {
		nodes.put(t, &n)
	}
	for _, svc := range v.Services {
		services.put(t, &svc)
	}
	for _, r := range v.Replicas {
		replicas.put(t, &r)
	}
	for _, w := range recalled(v.Replicas) {
		workloads.put(t, w)
	}
	t.txn.Commit()
	return View{txn: s.db.Txn(false), index: v.Index, common: &common{}}
}

// recalled makes workloads up from their replicas: the revision that is to run,
// and in how many slots.
func recalled(all []api.Replica) map[string]*api.Workload {
	out := make(map[string]*api.Workload)
	slots := make(map[string]map[int]bool)
	for _, r := range all {
		w := out[r.Workload]
		if w == nil {
			w = &api.Workload{Name: r.Workload, CreatedAt: r.CreatedAt}
			out[r.Workload], slots[r.Workload] = w, make(map[int]bool)
		}
		if r.Desired == api.DesiredRun {
			slots[r.Workload][r.Slot] = true
			w.Revision = max(w.Revision, r.Revision)
		}
		if r.CreatedAt.Before(w.CreatedAt) {
			w.CreatedAt = r.CreatedAt
		}
	}
	for _, r := range all {
		if w := out[r.Workload]; r.Revision == w.Revision && r.Spec.Image != "" {
			w.Spec = r.Spec
		}
	}
	for name, w := range out {
		w.Spec.Replicas = len(slots[name])
		w.Deleted = w.Spec.Replicas == 0 // all that is left of it is to stop
	}
	return out
}
