package reconcile

import (
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// standBy prepares for the death of nodes that have just fallen silent: every
// slot whose generations are all on such nodes gets one more, which its node
// makes ready and does not start. When the silence ends it is dropped. As
// long as anything lacks a node, nothing stands by: the room is for what should
// run.
func (k *work) standBy() {
	for _, s := range k.slots {
		needed := !k.short && k.silent(s)
		if s.spare != nil && !(needed && k.usable(s.spare)) {
			k.dropSpare(s)
		}
		switch {
		case s.spare != nil:
			k.spare++
		case needed && k.spare < maxStandby:
			k.placeSpare(s)
		}
	}
}

// silent reports whether all that lives of a slot is on suspect nodes.
func (k *work) silent(s *slot) bool {
	return len(s.live) > 0 && !slices.ContainsFunc(s.live, func(r *api.Replica) bool {
		n := k.nodes[r.Node]
		return n == nil || n.State != api.NodeSuspect
	})
}

// usable reports whether a standby could run now.
func (k *work) usable(spare *api.Replica) bool {
	n := k.nodes[spare.Node]
	return n != nil && n.State == api.NodeReady && !n.Cordoned && spare.Revision == k.w.Revision
}

// placeSpare puts a standby on a node. Where there is no room for one, there
// may still be some when the time comes.
func (k *work) placeSpare(s *slot) {
	live := s.live[len(s.live)-1]
	before := len(k.plan.Place)
	if k.place(s, live.ID) != nil {
		return
	}
	r := &k.plan.Place[before]
	r.Desired = api.DesiredStandby
	k.spare++
}

// promote lets the standby of a slot run, if there is one that can.
func (k *work) promote(s *slot) bool {
	if s.spare == nil || !k.usable(s.spare) {
		return false
	}
	k.plan.Promote = append(k.plan.Promote, s.spare.ID)
	s.spare = nil
	return true
}

func (k *work) dropSpare(s *slot) {
	if s.spare == nil {
		return
	}
	k.drop(s.spare)
	s.spare = nil
}

// drop forgets a standby; its room is free again for what is placed from now on.
func (p *planner) drop(r *api.Replica) {
	p.plan.Drop = append(p.plan.Drop, r.ID)
	p.room().Release(r.ID)
}
