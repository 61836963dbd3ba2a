package reconcile

import (
	"errors"
	"fmt"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/place"
)

// fillSlots gives every empty slot a new generation.
func (k *work) fillSlots() {
	for _, s := range k.slots {
		if len(s.live) == 0 {
			k.fill(s)
		}
	}
}

func (k *work) fill(s *slot) {
	if k.completed(s) || k.waits(s) {
		return
	}
	if n := len(s.going); n > 0 {
		if k.w.Spec.Update.Order == api.OrderStopFirst {
			return
		}
		// Its successor may already start beside it. If there is no room for both,
		// the end of the old one is what to wait for.
		_ = k.place(s, s.going[n-1].ID)
		return
	}
	if k.promote(s) {
		return
	}
	if k.full != "" { // as for the slot before: the requests are the same
		k.missing++
		return
	}
	if err := k.place(s, ""); err != nil && !errors.Is(err, errLater) {
		k.full = err.Error()
		k.missing++
	}
}

// errLater means that the plan is full; the next one follows at once.
var errLater = errors.New("the plan is full")

// completed reports whether the slot's process came to an end that its restart
// policy accepts.
func (k *work) completed(s *slot) bool {
	if len(s.ended) == 0 {
		return false
	}
	last := s.ended[len(s.ended)-1]
	if last.Desired != api.DesiredRun || last.Revision != k.w.Revision {
		return false
	}
	switch k.w.Spec.Restart.Policy {
	case api.RestartNever:
		return last.State != api.ReplicaLost
	case api.RestartOnFailure:
		return last.State == api.ReplicaStopped
	}
	return false
}

// waits reports whether the slot has to wait after failures, and wakes the
// planner when it is over.
func (k *work) waits(s *slot) bool {
	at := retryAt(s.ended, k.w)
	if !k.in.Now.Before(at) {
		return false
	}
	k.wake(at)
	return true
}

// retryAt returns when a slot may be filled again. The wait doubles with every
// failure in a row. It needs no memory of its own: how long the planner waited
// the last time shows in the replicas themselves.
func retryAt(ended []*api.Replica, w *api.Workload) time.Time {
	failed := func(i int) bool { // ended though it was meant to run
		return i >= 0 && ended[i].State != api.ReplicaLost && ended[i].Desired == api.DesiredRun && ended[i].Revision == w.Revision
	}
	n := len(ended) - 1
	if !failed(n) {
		return time.Time{}
	}
	last, backoff := ended[n], w.Spec.Restart.Backoff
	wait := backoff.Initial.Std()
	if worked := last.ChangedAt.Sub(last.CreatedAt) >= backoff.Max.Std(); failed(n-1) && !worked {
		wait = min(max(wait, 2*last.CreatedAt.Sub(ended[n-1].ChangedAt)), backoff.Max.Std())
	}
	return last.ChangedAt.Add(wait)
}

// place puts a new generation of a slot on a node, beside the one that it
// replaces, if any.
func (k *work) place(s *slot, replaces api.ReplicaID) error {
	if len(k.plan.Place) >= maxPlace {
		k.wake(k.in.Now)
		return errLater
	}
	generation := s.last + 1
	id := api.NewReplicaID(k.w.Name, s.number, generation)
	d, err := k.room().Place(place.Request{ID: id, Workload: k.w.Name, Spec: &k.w.Spec, Replaces: s.beside})
	if err != nil {
		return err
	}
	k.plan.Place = append(k.plan.Place, api.Replica{
		ID: id, Workload: k.w.Name, Slot: s.number, Generation: generation, Revision: k.w.Revision, Spec: k.w.Spec,
		Node: d.Node, Desired: api.DesiredRun, State: api.ReplicaAssigned, Decision: k.why(s, replaces) + d.String(),
		CreatedAt: k.in.Now, ChangedAt: k.in.Now,
	})
	return nil
}

// why says what the new generation is for, when it is not the slot's first.
func (k *work) why(s *slot, replaces api.ReplicaID) string {
	if replaces != "" {
		return fmt.Sprintf("replaces %s; ", replaces)
	}
	if n := len(s.away); n > 0 {
		return fmt.Sprintf("instead of %s, which is cut off; ", s.away[n-1].ID)
	}
	if n := len(s.ended); n > 0 {
		return fmt.Sprintf("after %s, %s; ", s.ended[n-1].ID, s.ended[n-1].State)
	}
	return ""
}
