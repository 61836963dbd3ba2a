package api

import (
	"fmt"
	"time"
)

// ReplicaState is how far a replica has come. It only moves forward, except
// between Ready and NotReady.
type ReplicaState string

// The states of a replica.
const (
	ReplicaPending   ReplicaState = "Pending"   // no node yet
	ReplicaAssigned  ReplicaState = "Assigned"  // a node was chosen, it has not answered yet
	ReplicaPreparing ReplicaState = "Preparing" // image and network
	ReplicaStarting  ReplicaState = "Starting"
	ReplicaRunning   ReplicaState = "Running"
	ReplicaReady     ReplicaState = "Ready"
	ReplicaNotReady  ReplicaState = "NotReady"
	ReplicaStopping  ReplicaState = "Stopping"
	ReplicaStopped   ReplicaState = "Stopped"
	ReplicaFailed    ReplicaState = "Failed"  // ended, and its restart policy lets it
	ReplicaLost      ReplicaState = "Lost"    // its node is down
	ReplicaUnknown   ReplicaState = "Unknown" // its node is out of sight
)

// Terminal reports whether a replica in this state will never run again.
func (s ReplicaState) Terminal() bool {
	return s == ReplicaStopped || s == ReplicaFailed || s == ReplicaLost
}

// Active reports whether the process is there: Running, Ready or NotReady.
func (s ReplicaState) Active() bool {
	return s == ReplicaRunning || s == ReplicaReady || s == ReplicaNotReady
}

// ReplicaID names one generation of one slot of a workload: "web.2.5".
type ReplicaID string

// NewReplicaID returns the ID of a slot's generation.
func NewReplicaID(workload string, slot, generation int) ReplicaID {
	return ReplicaID(fmt.Sprintf("%s.%d.%d", workload, slot, generation))
}

// Desired is what the anchor wants of a replica.
type Desired string

// The things an anchor can want.
const (
	DesiredRun     Desired = "run"
	DesiredStandby Desired = "standby" // made ready beside a replica on a silent node, not started
	DesiredStop    Desired = "stop"
)

// Replica is one generation of one slot of a workload. The anchor decides
// Node and Desired; the node observes the rest.
type Replica struct {
	ID         ReplicaID    `json:"id"`
	Workload   string       `json:"workload"`
	Slot       int          `json:"slot"`
	Generation int          `json:"generation"`
	Revision   int          `json:"revision"`
	Spec       WorkloadSpec `json:"spec"` // of that revision
	Node       NodeID       `json:"node"`
	Desired    Desired      `json:"desired"`
	State      ReplicaState `json:"state"`
	Reason     string       `json:"reason,omitempty"`
	Decision   string       `json:"decision,omitempty"` // why the anchor put it there
	Restarts   int          `json:"restarts"`
	Address    string       `json:"address,omitempty"` // IP of the container on its node
	CreatedAt  time.Time    `json:"created_at"`
	StartedAt  time.Time    `json:"started_at,omitzero"`
	ChangedAt  time.Time    `json:"changed_at"`
	Version    uint64       `json:"version"`
}

// ReplicaReport is a node's word on one of its replicas.
type ReplicaReport struct {
	ID        ReplicaID    `json:"id"`
	State     ReplicaState `json:"state"`
	Reason    string       `json:"reason,omitempty"`
	Restarts  int          `json:"restarts"`
	Address   string       `json:"address,omitempty"`
	StartedAt time.Time    `json:"started_at,omitzero"`
}
