package state

import "github.com/cloudless-project/cloudless/api"

// generation remembers the highest generation among the forgotten replicas of
// a workload, so that no ReplicaID is ever given out twice: a node may still
// have the remains of the first one.
type generation struct {
	Workload  string `json:"workload"`
	Last      int    `json:"last"`
	DeletedAt uint64 `json:"deleted_at,omitempty"` // index; 0 while the workload lives
}

// forget removes an ended replica from its slot's history.
func (t *tx) forget(r *api.Replica) {
	replicas.delete(t, r)
	g := generation{Workload: r.Workload}
	if old := generations.get(t.txn, r.Workload); old != nil {
		g = *old
	}
	if r.Generation > g.Last && r.Generation > t.newest(r.Workload, r.Slot) {
		g.Last = r.Generation
		generations.put(t, &g)
	}
}

// newest returns the highest generation of a slot that is remembered.
func (t *tx) newest(workload string, slot int) int {
	known := replicas.list(t.txn, "slot", slotKey(workload, slot))
	if len(known) == 0 {
		return 0
	}
	return known[len(known)-1].Generation
}

// nextGeneration returns a generation of a slot that was never used.
func (t *tx) nextGeneration(workload string, slot int) int {
	last := t.newest(workload, slot)
	if g := generations.get(t.txn, workload); g != nil {
		last = max(last, g.Last)
	}
	return last + 1
}

// buryGenerations keeps the memory of a workload that is gone, and drops that
// of the one that went longest ago when there are too many.
func (t *tx) buryGenerations(workload string) {
	old := generations.get(t.txn, workload)
	if old == nil {
		return
	}
	g := *old
	g.DeletedAt = t.index
	generations.put(t, &g)
	gone := generations.from(t.txn, "", -1)
	dead := gone[:0]
	for _, g := range gone {
		if g.DeletedAt > 0 {
			dead = append(dead, g)
		}
	}
	if len(dead) > MaxDeletedGenerations {
		oldest := dead[0]
		for _, g := range dead {
			if g.DeletedAt < oldest.DeletedAt {
				oldest = g
			}
		}
		generations.delete(t, oldest)
	}
}
