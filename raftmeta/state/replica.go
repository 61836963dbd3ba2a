package state

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// progress orders the states of a replica. Pending and Unknown are not for a
// node to report, nor is Assigned news. Lost is its word on what it gave up
// while it was cut off.
var progress = map[api.ReplicaState]int{
	api.ReplicaAssigned:  1,
	api.ReplicaPreparing: 2,
	api.ReplicaStarting:  3,
	api.ReplicaRunning:   4,
	api.ReplicaReady:     5,
	api.ReplicaNotReady:  5,
	api.ReplicaStopping:  6,
	api.ReplicaStopped:   7,
	api.ReplicaFailed:    7,
	api.ReplicaLost:      7,
}

// advances reports whether a replica may go from one state to another.
func advances(from, to api.ReplicaState) bool {
	if from.Terminal() || from == to || progress[to] == 0 {
		return false
	}
	return progress[to] > progress[from] || progress[to] == progress[api.ReplicaReady] && progress[from] == progress[to]
}

func (t *tx) moveReplica(r *api.Replica, to api.ReplicaState, now time.Time) {
	r.State, r.ChangedAt, r.Version = to, now, t.index
	r.Reason = clip(r.Reason)
	replicas.put(t, r)
}

// ended does what is due after a replica has reached its final state.
func (t *tx) ended(r *api.Replica, now time.Time) {
	t.trimSlot(r.Workload, r.Slot)
	t.reap(r.Workload, now)
}

// trimSlot forgets all but the last few ended generations of a slot.
func (t *tx) trimSlot(workload string, slot int) {
	var over []*api.Replica
	for _, r := range replicas.list(t.txn, "slot", slotKey(workload, slot)) {
		if r.State.Terminal() {
			over = append(over, r)
		}
	}
	for _, r := range over[:max(0, len(over)-MaxTerminalPerSlot)] {
		replicas.delete(t, r)
	}
}

func (t *tx) replicaEvent(code api.Code, now time.Time, reason string, r *api.Replica, format string, args ...any) {
	t.event(code, now, reason, api.Object{Kind: "replica", Name: string(r.ID)}, r.Node, format, args...)
}
