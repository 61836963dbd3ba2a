package cli

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// workloadJSON is a workload as scripts see it.
type workloadJSON struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Revision  int               `json:"revision"`
	Replicas  replicasJSON      `json:"replicas"`
	State     api.WorkloadState `json:"state"`
	Image     string            `json:"image"`
	Rollout   *api.Rollout      `json:"rollout"` // null: none is under way
	Message   string            `json:"message"`
	CreatedAt moment            `json:"created_at"`
	UpdatedAt moment            `json:"updated_at"`

	StaleSince time.Time `json:"stale_since,omitzero"` // no anchor answered: as of then
}

type replicasJSON struct {
	Desired int `json:"desired"`
	Running int `json:"running"`
	Ready   int `json:"ready"`
}

func newWorkloadJSON(w api.WorkloadStatus) workloadJSON {
	return workloadJSON{
		Name:      w.Name,
		Labels:    object(w.Labels),
		Revision:  w.Revision,
		Replicas:  replicasJSON{Desired: w.Spec.Replicas, Running: w.Running, Ready: w.Ready},
		State:     w.State,
		Image:     w.Spec.Image,
		Rollout:   w.Rollout,
		Message:   w.Message,
		CreatedAt: moment(w.CreatedAt),
		UpdatedAt: moment(w.UpdatedAt),

		StaleSince: w.StaleSince,
	}
}

// workloadDetailJSON is what show adds. The spec is in the form of a manifest.
type workloadDetailJSON struct {
	workloadJSON
	Spec        api.WorkloadSpec `json:"spec"`
	ReplicaList []replicaJSON    `json:"replica_list"`
}

type replicaJSON struct {
	ID         api.ReplicaID    `json:"id"`
	Slot       int              `json:"slot"`
	Generation int              `json:"generation"`
	Revision   int              `json:"revision"`
	Node       api.NodeID       `json:"node"`
	NodeName   string           `json:"node_name"`
	State      api.ReplicaState `json:"state"`
	Desired    api.Desired      `json:"desired"`
	Reason     string           `json:"reason"`
	Decision   string           `json:"decision"`
	Restarts   int              `json:"restarts"`
	CreatedAt  moment           `json:"created_at"`
	StartedAt  moment           `json:"started_at"`
	Address    string           `json:"address"`
}

func newWorkloadDetailJSON(w api.WorkloadStatus, names map[api.NodeID]string) workloadDetailJSON {
	return workloadDetailJSON{
		workloadJSON: newWorkloadJSON(w),
		Spec:         w.Spec,
		ReplicaList: array(sortedReplicas(w.Replicas), func(r api.Replica) replicaJSON {
			return replicaJSON{
				ID:         r.ID,
				Slot:       r.Slot,
				Generation: r.Generation,
				Revision:   r.Revision,
				Node:       r.Node,
				NodeName:   names[r.Node],
				State:      r.State,
				Desired:    r.Desired,
				Reason:     r.Reason,
				Decision:   r.Decision,
				Restarts:   r.Restarts,
				CreatedAt:  moment(r.CreatedAt),
				StartedAt:  moment(r.StartedAt),
				Address:    r.Address,
			}
		}),
	}
}
