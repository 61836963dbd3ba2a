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
			s.going = append(s.going, r)
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
	if k.halted != "" { // what is of an older revision goes on serving
		stale = slices.DeleteFunc(stale, func(r *api.Replica) bool { return r.Revision != k.w.Revision })
		if len(stale) == 0 {
			return
		}
	}
	old := stale[len(stale)-1]
	if k.waits(s) {
		k.surging++ // no other slot tries meanwhile what failed in this one
		return
	}
	if k.w.Spec.Update.Order == api.OrderStopFirst {
		k.makeRoom(s, stale)
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
		if !k.ending(s) { // else that may give all the room it takes
			k.makeRoom(s, stale)
		}
		return
	}
	if serves {
		k.surging++
	}
}

// ending reports whether a generation of the slot is about to end. What is out
// of sight may take for ever.
func (k *work) ending(s *slot) bool {
	return slices.ContainsFunc(s.going, func(r *api.Replica) bool { return k.where(r) != hidden })
}

// makeRoom stops stale replicas of a slot before their successor starts, if the
// successor then has a place and as far as the budget allows it. It stops all
// that are in the way at once: one now and one with the next plan would only
// take longer.
func (k *work) makeRoom(s *slot, stale []*api.Replica) {
	old, err := k.inTheWay(s, stale)
	if errors.Is(err, errLater) {
		return
	}
	if err != nil {
		k.blocked = fmt.Sprintf("replica %s cannot be replaced: %s", stale[len(stale)-1].ID, err)
		return
	}
	for _, r := range old {
		if k.stopWithin(r, k.reason(r)) {
			s.going = append(s.going, r)
		} else {
			k.blocked = fmt.Sprintf("replica %s cannot be replaced: it would have to stop first, and then fewer than %d would serve", r.ID, k.least)
		}
	}
}

// inTheWay returns, newest first, the stale replicas that have to stop before
// their successor starts: all of them when the spec says so, else as few as make
// room for it.
func (k *work) inTheWay(s *slot, stale []*api.Replica) (old []*api.Replica, err error) {
	fleet := k.room()
	defer func() {
		for _, r := range stale {
			fleet.Reserve(r.ID, r.Workload, &r.Spec, r.Node)
		}
	}()
	for i, r := range slices.Backward(stale) {
		fleet.Release(r.ID)
		old = append(old, r)
		if i > 0 && k.w.Spec.Update.Order == api.OrderStopFirst {
			continue
		}
		if err = k.tryPlace(s); err == nil || errors.Is(err, errLater) {
			break
		}
	}
	return old, err
}

// tryPlace asks whether a slot's next generation has a place.
func (k *work) tryPlace(s *slot) error {
	before := len(k.plan.Place)
	if err := k.place(s, ""); err != nil {
		return err
	}
	k.room().Release(k.plan.Place[before].ID)
	k.plan.Place = k.plan.Place[:before]
	return nil
}
