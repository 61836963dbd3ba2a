package state

import (
	"maps"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// CommitPlan carries out a plan of the scheduler: all of it, or nothing and
// KindConflict when it was made on facts that no longer hold. Its value is the
// []api.Replica that were placed.
type CommitPlan struct {
	// Index is that of the View the plan was made on. A node, workload or
	// replica that the plan touches and whose Version is greater makes the plan
	// stale. 0 checks the facts themselves only.
	Index    uint64            `json:"index"`
	Place    []Placement       `json:"place,omitempty"`
	Promote  []api.ReplicaID   `json:"promote,omitempty"` // standbys that are to run now
	Drop     []api.ReplicaID   `json:"drop,omitempty"`    // standbys that are not needed
	Stop     []StopReplica     `json:"stop,omitempty"`
	Forget   []api.ReplicaID   `json:"forget,omitempty"`   // ended replicas
	Unplaced map[string]string `json:"unplaced,omitempty"` // workload → reason; replaces all earlier ones
	Now      time.Time         `json:"now"`
}

// Placement is a new generation of a slot, on a node.
type Placement struct {
	Workload   string     `json:"workload"`
	Slot       int        `json:"slot"`
	Generation int        `json:"generation"` // raised if it was ever used before
	Revision   int        `json:"revision"`   // the workload's current one
	Node       api.NodeID `json:"node"`
	Decision   string     `json:"decision,omitempty"`
	Standby    bool       `json:"standby,omitempty"` // made ready, not started
}

// Placements returns the decisions in replicas that a planner has made up; the
// rest of a replica is for the state to fill in.
func Placements(planned []api.Replica) []Placement {
	out := make([]Placement, len(planned))
	for i, r := range planned {
		out[i] = Placement{r.Workload, r.Slot, r.Generation, r.Revision, r.Node, r.Decision, r.Desired == api.DesiredStandby}
	}
	return out
}

// StopReplica asks for the end of a replica.
type StopReplica struct {
	ID     api.ReplicaID `json:"id"`
	Reason string        `json:"reason"`
}

// note says why replicas of a workload have no node.
type note struct {
	Workload string `json:"workload"`
	Reason   string `json:"reason"`
}

func (c CommitPlan) apply(t *tx) (any, error) {
	for _, id := range c.Forget {
		if err := c.forget(t, id); err != nil {
			return nil, err
		}
	}
	if err := c.checkDisruption(t); err != nil {
		return nil, err
	}
	if err := c.standbys(t); err != nil {
		return nil, err
	}
	for _, s := range c.Stop {
		if err := c.stop(t, s); err != nil {
			return nil, err
		}
	}
	placed := make([]api.Replica, 0, len(c.Place))
	for _, p := range c.Place {
		r, err := c.place(t, p)
		if err != nil {
			return nil, err
		}
		placed = append(placed, *r)
	}
	c.note(t)
	return placed, nil
}

// fresh refuses a plan that did not know the last change of what it touches.
func (c CommitPlan) fresh(kind, name string, version uint64) error {
	if c.Index != 0 && version > c.Index {
		return stale("%s %s has changed since the plan was made", kind, name)
	}
	return nil
}

func stale(format string, args ...any) error { return api.Errorf(api.KindConflict, format, args...) }

func (c CommitPlan) forget(t *tx, id api.ReplicaID) error {
	r := replicas.get(t.txn, string(id))
	if r == nil {
		return nil
	}
	if !r.State.Terminal() {
		return stale("replica %s is to be forgotten, but is %s", id, r.State)
	}
	t.forget(r)
	t.reap(r.Workload, c.Now)
	return nil
}

func (c CommitPlan) stop(t *tx, s StopReplica) error {
	old := replicas.get(t.txn, string(s.ID))
	if old == nil {
		return stale("replica %s is to be stopped, but is not known", s.ID)
	}
	if old.State.Terminal() || old.Desired == api.DesiredStop {
		return nil
	}
	if err := c.fresh("replica", string(s.ID), old.Version); err != nil {
		return err
	}
	r := *old
	r.Desired, r.Reason, r.Version = api.DesiredStop, clip(s.Reason), t.index
	replicas.put(t, &r)
	return nil
}

func (c CommitPlan) place(t *tx, p Placement) (*api.Replica, error) {
	w, err := c.checkWorkload(t, p)
	if err != nil {
		return nil, err
	}
	n, err := c.checkNode(t, p.Node)
	if err != nil {
		return nil, err
	}
	check, desired := t.checkSlot, api.DesiredRun
	if p.Standby {
		check, desired = t.checkStandby, api.DesiredStandby
	}
	if err := check(p); err != nil {
		return nil, err
	}
	generation := max(p.Generation, t.nextGeneration(p.Workload, p.Slot))
	r := &api.Replica{
		ID: api.NewReplicaID(p.Workload, p.Slot, generation), Workload: p.Workload, Slot: p.Slot,
		Generation: generation, Revision: w.Revision, Spec: w.Spec, Node: p.Node, Desired: desired,
		State: api.ReplicaAssigned, Decision: clip(p.Decision), CreatedAt: c.Now, ChangedAt: c.Now, Version: t.index,
	}
	replicas.put(t, r)
	if !p.Standby { // which is told of when it is needed
		t.placed(r, n, c.Now)
	}
	return r, nil
}

func (t *tx) placed(r *api.Replica, n *api.Node, now time.Time) {
	t.replicaEvent(api.CodeReplicaPlaced, now, "Placed", r, "replica %s was placed on node %s: %s", r.ID, n.Inventory.Name, r.Decision)
}

func (c CommitPlan) checkNode(t *tx, id api.NodeID) (*api.Node, error) {
	n := nodes.get(t.txn, string(id))
	if n == nil || n.State != api.NodeReady || n.Cordoned {
		return nil, stale("node %s does not take work", t.nodeName(id))
	}
	return n, c.fresh("node", n.Inventory.Name, n.Version)
}

func (c CommitPlan) checkWorkload(t *tx, p Placement) (*api.Workload, error) {
	w := workloads.get(t.txn, p.Workload)
	if w == nil || w.Deleted {
		return nil, stale("workload %s is gone", clip(p.Workload))
	}
	if w.Revision != p.Revision {
		return nil, stale("workload %s is at revision %d, not %d", w.Name, w.Revision, p.Revision)
	}
	if p.Slot < 0 || p.Slot > MaxReplicas {
		return nil, api.Invalid("slot", "%d is not between 0 and %d", p.Slot, MaxReplicas)
	}
	return w, c.fresh("workload", w.Name, w.Version)
}

// checkSlot allows one living generation of a slot at each revision. A second
// one may join it while the first one's node takes no work, so that the
// replacement is up before the original has to go.
func (t *tx) checkSlot(p Placement) error {
	for _, r := range replicas.list(t.txn, "slot", slotKey(p.Workload, p.Slot)) {
		if r.State.Terminal() || r.Desired != api.DesiredRun || r.Revision != p.Revision {
			continue
		}
		if n := nodes.get(t.txn, string(r.Node)); n != nil && n.State == api.NodeReady && !n.Cordoned {
			return stale("slot %d of workload %s is taken by replica %s", p.Slot, p.Workload, r.ID)
		}
	}
	return nil
}

// note replaces the reasons why replicas have no node.
func (c CommitPlan) note(t *tx) {
	for _, n := range notes.all(t.txn) {
		if _, ok := c.Unplaced[n.Workload]; !ok {
			notes.delete(t, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Unplaced)) {
		reason := clip(c.Unplaced[name])
		if workloads.get(t.txn, name) == nil || reason == "" {
			continue
		}
		if old := notes.get(t.txn, name); old != nil && old.Reason == reason {
			continue
		}
		notes.put(t, &note{name, reason})
		t.workloadEvent(api.CodeReplicaUnplaced, c.Now, "Unplaced", name, "workload %s has replicas without a node: %s", name, reason)
	}
}
