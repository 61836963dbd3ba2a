package reconcile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// replaceStale goes on with rollouts and drains: first it ends what has been
// replaced, so that as many others may begin.
func (k *work) replaceStale() {
	for _, s := range k.slots {
		if good, stale := k.split(s); len(good) > 0 && !k.hides(s) {
			k.settle(good, stale)
		}
	}
	for _, s := range k.slots {
		if good, stale := k.split(s); len(good) == 0 && len(stale) > 0 && !k.hides(s) {
			k.replace(s, k.dropUseless(s, stale))
		}
	}
}

// settle lets one new generation hold the slot, and ends the stale ones once
// it can be relied upon.
func (k *work) settle(good, stale []*api.Replica) {
	keep := good[0] // the first one there wins a tie
	for _, r := range good[1:] {
		if !k.isAvailable(keep) && k.isAvailable(r) {
			keep = r
		}
	}
	if !k.isAvailable(keep) {
		return
	}
	left := 0
	for _, r := range stale {
		if !k.stopWithin(r, fmt.Sprintf("replaced by %s", keep.ID)) {
			left++
		}
	}
	if len(stale) > 0 && left == 0 {
		k.surging--
	}
	for _, r := range good {
		if r != keep {
			k.stopWithin(r, fmt.Sprintf("%s holds the slot", keep.ID))
		}
	}
}

// dropUseless stops stale generations that never ran, or that do not serve
// while another one does, and returns the rest.
func (k *work) dropUseless(s *slot, stale []*api.Replica) (kept []*api.Replica) {
	oneServes := slices.ContainsFunc(stale, k.serves)
	for _, r := range stale {
		useless := !r.State.Active() || oneServes && !k.serves(r)
		if useless && k.stopWithin(r, k.reason(r)) {
			s.going = r
		} else {
			kept = append(kept, r)
		}
	}
	return kept
}

// reason says why a stale replica has to go.
func (k *work) reason(r *api.Replica) string {
	if r.Revision != k.w.Revision {
		return fmt.Sprintf("revision %d replaces revision %d", k.w.Revision, r.Revision)
	}
	return "its node is drained"
}

// replace begins to replace the stale generations of a slot that has no other.
func (k *work) replace(s *slot, stale []*api.Replica) {
	if len(stale) == 0 {
		k.fill(s)
		return
	}
	old := stale[len(stale)-1]
	if k.halted != "" && old.Revision != k.w.Revision {
		return
	}
	if k.waits(s) {
		k.surging++ // no other slot tries meanwhile what failed in this one
		return
	}
	if k.w.Spec.Update.Order == api.OrderStopFirst {
		k.makeRoom(s, old)
		return
	}
	serves := k.serves(old)
	if serves && k.surging >= max(k.w.Spec.Update.MaxSurge, 1) {
		return // its turn comes
	}
	err := k.place(s, old.ID)
	if errors.Is(err, errLater) {
		return
	}
	if err != nil {
		k.makeRoom(s, old)
		return
	}
	if serves {
		k.surging++
	}
}

// makeRoom stops a stale replica before its successor starts, if the successor
// then has a place and the budget allows it.
func (k *work) makeRoom(s *slot, old *api.Replica) {
	err := k.tryWithout(s, old)
	if errors.Is(err, errLater) {
		return
	}
	if err != nil {
		k.blocked = fmt.Sprintf("replica %s cannot be replaced: %s", old.ID, err)
		return
	}
	if k.stopWithin(old, k.reason(old)) {
		s.going = old
	} else {
		k.blocked = fmt.Sprintf("replica %s cannot be replaced: it would have to stop first, and then fewer than %d would serve", old.ID, k.least)
	}
}

// tryWithout asks whether the successor of a replica could be placed if the
// replica were gone.
func (k *work) tryWithout(s *slot, old *api.Replica) error {
	before := len(k.plan.Place)
	fleet := k.room()
	fleet.Release(old.ID)
	defer fleet.Reserve(old.ID, old.Workload, &old.Spec, old.Node)
	if err := k.place(s, old.ID); err != nil {
		return err
	}
	for _, r := range k.plan.Place[before:] {
		fleet.Release(r.ID)
	}
	k.plan.Place = k.plan.Place[:before]
	return nil
}
