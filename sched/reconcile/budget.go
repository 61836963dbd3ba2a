package reconcile

import (
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// budget counts what works of a workload, so that the plan itself never takes
// it below minAvailable.
type budget struct {
	least     int // minAvailable
	serving   int // take traffic and are meant to go on; the state checks this one when it commits
	available int // of those, the ones that have served for minHealthy
	surging   int // slots that have a stale and a new generation
}

func (k *work) newBudget() budget {
	b := budget{least: k.w.Spec.MinAvailable()}
	for _, s := range append(k.slots[:len(k.slots):len(k.slots)], k.extra...) {
		good, stale := k.split(s)
		if len(good) > 0 && len(stale) > 0 {
			b.surging++
		}
		for _, r := range s.live {
			if k.serves(r) {
				b.serving++
			}
			if k.isAvailable(r) {
				b.available++
			}
		}
	}
	return b
}

// serves reports whether a replica takes traffic.
func (k *work) serves(r *api.Replica) bool {
	w := k.where(r)
	return r.State == api.ReplicaReady && r.Desired == api.DesiredRun && (w == here || w == leaving)
}

// isAvailable reports whether a replica has served long enough to be relied
// upon. Of one that has not, the plan has to look again when it has.
func (k *work) isAvailable(r *api.Replica) bool {
	if !k.serves(r) {
		return false
	}
	at := r.ChangedAt.Add(k.w.Spec.Update.MinHealthy.Std())
	if k.in.Now.Before(at) {
		k.wake(at)
		return false
	}
	return true
}

// stopWithin stops a replica unless that takes the workload below minAvailable.
func (k *work) stopWithin(r *api.Replica, reason string) bool { return k.stopAbove(k.least, r, reason) }

func (k *work) stopAbove(least int, r *api.Replica, reason string) bool {
	serves, available := k.serves(r), k.isAvailable(r)
	if serves && k.serving-1 < least || available && k.available-1 < least {
		return false
	}
	if !k.stop(r, reason) {
		return false
	}
	if serves {
		k.serving--
	}
	if available {
		k.available--
	}
	return true
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
