package sched

import (
	"cmp"
	"slices"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/place"
	"github.com/cloudless-project/cloudless/sched/reconcile"
)

// Explanation says why the replicas of a workload are where they are, and what
// every node would be worth to another one now.
type Explanation struct {
	Workload string          `json:"workload"`
	Revision int             `json:"revision"`
	Desired  int             `json:"desired"`
	Lacks    string          `json:"lacks,omitempty"` // what the scheduler cannot do, and why
	Replicas []Placed        `json:"replicas"`
	Nodes    []place.Verdict `json:"nodes"` // best first; those that are out come last
	Weights  place.Weights   `json:"weights"`
}

// Placed is a living replica with the reason for its place.
type Placed struct {
	Replica  api.ReplicaID    `json:"replica"`
	Node     api.NodeID       `json:"node"`
	NodeName string           `json:"node_name"`
	State    api.ReplicaState `json:"state"`
	Reason   string           `json:"reason,omitempty"`
	Decision string           `json:"decision"`
}

// Explain explains a workload, or only one of its replicas. Of that one, and of
// the only one that a workload has, the verdicts are those of when it was
// placed, as far as they can be had again: without itself and without what came
// after it.
func Explain(in reconcile.Input, name string) (Explanation, error) {
	var only *api.Replica
	workload := name
	if i := slices.IndexFunc(in.Replicas, func(r api.Replica) bool { return string(r.ID) == name }); i >= 0 {
		only = &in.Replicas[i]
		workload = only.Workload
	}
	at := slices.IndexFunc(in.Workloads, func(w api.Workload) bool { return w.Name == workload })
	if at < 0 {
		return Explanation{}, api.Errorf(api.KindNotFound, "there is no workload or replica %q", name).
			WithHint("see what there is with: cloudless workload list")
	}
	w := &in.Workloads[at]
	weights := in.Weights
	if weights == (place.Weights{}) {
		weights = place.DefaultWeights
	}
	out := Explanation{Workload: w.Name, Revision: w.Revision, Desired: w.Spec.Replicas, Lacks: in.Unplaced[w.Name],
		Replicas: placed(in, w.Name, only), Weights: weights}
	fleet := reconcile.Fleet(in)
	req := place.Request{Workload: w.Name, Spec: &w.Spec}
	if only == nil && len(out.Replicas) == 1 && w.Spec.Replicas == 1 {
		only = &in.Replicas[slices.IndexFunc(in.Replicas, func(r api.Replica) bool { return r.ID == out.Replicas[0].Replica })]
	}
	if only != nil {
		for i := range in.Replicas {
			if r := &in.Replicas[i]; !before(r, only) {
				fleet.Release(r.ID)
			}
		}
		req.Spec = &only.Spec
	}
	out.Nodes = fleet.Explain(req)
	return out, nil
}

func placed(in reconcile.Input, workload string, only *api.Replica) []Placed {
	names := make(map[api.NodeID]string, len(in.Nodes))
	for i := range in.Nodes {
		names[in.Nodes[i].ID] = in.Nodes[i].Inventory.Name
	}
	out := []Placed{}
	for i := range in.Replicas {
		r := &in.Replicas[i]
		if r.Workload != workload || only == nil && r.State.Terminal() || only != nil && r.ID != only.ID {
			continue
		}
		out = append(out, Placed{r.ID, r.Node, names[r.Node], r.State, r.Reason, r.Decision})
	}
	slices.SortFunc(out, func(a, b Placed) int { return cmp.Compare(a.Replica, b.Replica) })
	return out
}

// before reports whether a replica was placed before another one. Those of one
// workload that one plan placed were placed in the order of their slots.
func before(r, than *api.Replica) bool {
	c := r.CreatedAt.Compare(than.CreatedAt)
	return c < 0 || c == 0 && (r.Workload != than.Workload || r.Slot < than.Slot)
}
