package reconcile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// work is one workload while a plan is made.
type work struct {
	*planner
	w     *api.Workload
	slots []*slot // 0 … replicas−1
	extra []*slot // those beyond
	budget
	halted  string // why the rollout goes no further, "" when it does
	full    string // why another replica fits nowhere, "" when it may
	missing int    // slots that could not be filled
	blocked string // why a stale replica could not be replaced
}

// slot is one slot's generations.
type slot struct {
	number int
	last   int            // highest generation
	live   []*api.Replica // meant to run and able to, by generation
	going  []*api.Replica // told to stop, have not ended, by generation
	away   []*api.Replica // of a house that has been offline for too long; welcome back
	spare  *api.Replica   // stands by, in case that what lives is dead
	ended  []*api.Replica // by generation

	beside []api.ReplicaID // live and going: the next generation may be their neighbour
}

func (p *planner) newWork(w *api.Workload, replicas []*api.Replica) *work {
	k := &work{planner: p, w: w}
	k.slots = make([]*slot, w.Spec.Replicas)
	for i := range k.slots {
		k.slots[i] = &slot{number: i}
	}
	slices.SortFunc(replicas, func(a, b *api.Replica) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Generation, b.Generation))
	})
	for _, r := range replicas {
		s := k.slot(r.Slot)
		s.last = max(s.last, r.Generation)
		switch {
		case r.State.Terminal():
			s.ended = append(s.ended, r)
		case r.Desired == api.DesiredStandby:
			s.spare = r
		case p.where(r) == gone:
		case p.away(r):
			s.away = append(s.away, r)
		case r.Desired == api.DesiredRun:
			s.live, s.beside = append(s.live, r), append(s.beside, r.ID)
		default:
			s.going, s.beside = append(s.going, r), append(s.beside, r.ID)
		}
	}
	k.budget = k.newBudget()
	k.halted = k.rolloutFault()
	return k
}

// slot returns the slot of a replica; replicas come in the order of slots.
func (k *work) slot(number int) *slot {
	if number < len(k.slots) {
		return k.slots[number]
	}
	if n := len(k.extra); n > 0 && k.extra[n-1].number == number {
		return k.extra[n-1]
	}
	s := &slot{number: number}
	k.extra = append(k.extra, s)
	return s
}

// stale reports whether a replica has to make way for a new generation.
func (k *work) stale(r *api.Replica) bool {
	return r.Revision != k.w.Revision || k.where(r) == leaving
}

// split parts a slot's living generations into those that hold it and those
// that have to make way.
func (k *work) split(s *slot) (good, stale []*api.Replica) {
	for _, r := range s.live {
		if k.stale(r) {
			stale = append(stale, r)
		} else {
			good = append(good, r)
		}
	}
	return good, stale
}

// hides reports whether a generation of the slot is out of sight. Such a slot
// is left alone: the house may only be offline.
func (k *work) hides(s *slot) bool {
	return slices.ContainsFunc(s.live, func(r *api.Replica) bool { return k.where(r) == hidden })
}

// scaleDown empties the slots beyond the wanted number: first those that do
// not serve, then the highest. The last one that serves stays until another one
// does.
func (k *work) scaleDown() {
	var surplus []*api.Replica
	for _, s := range k.extra {
		surplus = append(surplus, s.live...)
		for _, r := range s.away {
			if r.Desired == api.DesiredRun {
				k.stop(r, fmt.Sprintf("scaled down to %d", k.w.Spec.Replicas))
			}
		}
		for _, r := range s.ended {
			k.forget(r)
		}
	}
	slices.SortStableFunc(surplus, func(a, b *api.Replica) int {
		return cmp.Or(compare(k.serves(a), k.serves(b)), cmp.Compare(b.Slot, a.Slot))
	})
	least := max(k.least, min(1, k.w.Spec.Replicas))
	for _, r := range surplus {
		k.stopAbove(least, r, fmt.Sprintf("scaled down to %d", k.w.Spec.Replicas))
	}
}

// compare orders false before true.
func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// underway reports whether some slot is between two generations: then whatever
// has to wait may only be waiting for its turn.
func (k *work) underway() bool {
	return slices.ContainsFunc(k.slots, func(s *slot) bool {
		good, _ := k.split(s)
		return len(s.going) > 0 || len(s.live) == 0 || len(good) > 0 && !slices.ContainsFunc(good, k.isAvailable)
	})
}

// takeNote says what the workload lacks.
func (k *work) takeNote() {
	note := k.halted
	switch {
	case k.missing > 0:
		note = fmt.Sprintf("%d of %d replicas have no node: %s", k.missing, k.w.Spec.Replicas, k.full)
		if k.w.Spec.Replicas == 1 {
			note = "the replica has no node: " + k.full
		}
	case note == "" && !k.underway():
		note = k.blocked
	}
	if note == "" || len(k.plan.Unplaced) >= maxNotes {
		return
	}
	k.plan.Unplaced[k.w.Name] = clip(note, maxNote)
}
