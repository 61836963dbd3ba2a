package state

import (
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// standbys lets those run that are needed, and forgets those that are not. A
// standby never ran, so nothing is left of it to remember: its node removes what
// it is not assigned.
func (c CommitPlan) standbys(t *tx) error {
	for _, id := range c.Drop {
		r := replicas.get(t.txn, string(id))
		if r == nil || r.Desired != api.DesiredStandby {
			return stale("replica %s is to be dropped, and is no standby", id)
		}
		t.drop(r, c.Now)
	}
	for _, id := range c.Promote {
		if err := c.promote(t, id); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) drop(r *api.Replica, now time.Time) {
	t.forget(r)
	t.reap(r.Workload, now)
}

// promote makes a standby the replica of its slot. What its node has said of it
// meanwhile does not matter.
func (c CommitPlan) promote(t *tx, id api.ReplicaID) error {
	old := replicas.get(t.txn, string(id))
	if old == nil || old.Desired != api.DesiredStandby || old.State.Terminal() {
		return stale("replica %s is to run, and does not stand by", id)
	}
	p := Placement{Workload: old.Workload, Slot: old.Slot, Revision: old.Revision, Node: old.Node}
	if _, err := c.checkWorkload(t, p); err != nil {
		return err
	}
	n, err := c.checkNode(t, old.Node)
	if err != nil {
		return err
	}
	if err := t.checkSlot(p); err != nil {
		return err
	}
	r := *old
	r.Desired, r.CreatedAt, r.Version = api.DesiredRun, c.Now, t.index
	replicas.put(t, &r)
	t.placed(&r, n, c.Now)
	return nil
}

// checkStandby allows one standby of a slot, as long as something of the slot
// lives that it stands by for.
func (t *tx) checkStandby(p Placement) error {
	known := replicas.list(t.txn, "slot", slotKey(p.Workload, p.Slot))
	live := func(d api.Desired) bool {
		return slices.ContainsFunc(known, func(r *api.Replica) bool { return !r.State.Terminal() && r.Desired == d })
	}
	if live(api.DesiredStandby) || !live(api.DesiredRun) {
		return stale("slot %d of workload %s needs no standby", p.Slot, p.Workload)
	}
	return nil
}
