package reconcile

import (
	"slices"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/place"
)

// standBy prepares for the death of nodes that have just fallen silent: every
// slot whose generations are all on such nodes gets one more, which its node
// makes ready and does not start. It is dropped when the silence ends, and when
// something that should run takes its room.
func (k *work) standBy() {
	for _, s := range slices.Concat(k.slots, k.extra) {
		needed := s.number < len(k.slots) && k.silent(s)
		if s.spare != nil && !(needed && k.takeRoom(s)) {
			k.drop(s.spare)
			s.spare = nil
		}
		switch {
		case s.spare != nil:
			k.spares++
		case needed && k.spares < maxStandby:
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

// placeSpare puts a standby on a node. Where there is no room for one, there
// may still be some when the time comes.
func (k *work) placeSpare(s *slot) {
	before := len(k.plan.Place)
	if k.place(s, s.live[len(s.live)-1].ID) != nil {
		return
	}
	k.plan.Place[before].Desired = api.DesiredStandby
	k.spares++
}

// promote lets the standby of a slot run, if there is one that can.
func (k *work) promote(s *slot) bool {
	if s.spare == nil || !k.takeRoom(s) {
		return false
	}
	k.plan.Promote = append(k.plan.Promote, s.spare.ID)
	s.spare = nil
	return true
}

// releaseSpares leaves the standbys out of account while places are looked for
// for what should run: they have to do with what is left.
func (p *planner) releaseSpares() {
	for i := range p.in.Replicas {
		if r := &p.in.Replicas[i]; r.Desired == api.DesiredStandby {
			p.fleet.Release(r.ID)
		}
	}
}

// takeRoom takes the room for the standby of a slot, if it would be placed where
// it is by now.
func (k *work) takeRoom(s *slot) bool {
	spare := s.spare
	if spare.Revision != k.w.Revision {
		return false
	}
	req := place.Request{ID: spare.ID, Workload: k.w.Name, Spec: &k.w.Spec, Replaces: s.beside}
	fits := slices.ContainsFunc(k.room().Explain(req), func(v place.Verdict) bool { return v.Node == spare.Node && v.Fits })
	if fits {
		k.room().Reserve(spare.ID, k.w.Name, &k.w.Spec, spare.Node)
	}
	return fits
}

func (p *planner) drop(r *api.Replica) { p.plan.Drop = append(p.plan.Drop, r.ID) }
