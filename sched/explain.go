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

// Explain explains a workload, or only one of its replicas: of that one, the
// verdicts leave its own room and its own weight as a neighbour out.
func Explain(in reconcile.Input, name string) (Explanation, error) {
	var only *api.Replica
	workload := name
	if i := slices.IndexFunc(in.Replicas, func(r api.Replica) bool { return string(r.ID) == name }); i >= 0 {
		only = &in.Replicas[i]
		workload = only.Workload
	}
	at := slices.IndexFunc(in.Workloads, func(w api.Workload) bool { return w.Name == workload })
	if at < 0 {
		return Explanation{}, api.Errorf(api.KindNotFound, "there is no workload or replica %q", name)
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
	if only != nil {
		fleet.Release(only.ID)
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
