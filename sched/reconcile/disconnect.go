package reconcile

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// stopsWithin is how long a replica may go on after the time at which a house
// that is cut off stops it by itself: its node hears from the anchors every few
// seconds, and a process may take ten to end.
const stopsWithin = 20 * time.Second

// away reports whether a replica is in a house that has been offline for longer
// than its workload wants to wait. Its slot is then filled elsewhere, and it is
// let be: when its house is back it may win the slot again. A workload that is
// stopped there is started elsewhere only when it must have ended.
func (p *planner) away(r *api.Replica) bool {
	n := p.nodes[r.Node]
	if n == nil || n.State != api.NodeCutOff {
		return false
	}
	after := r.Spec.OnDisconnect.After.Std()
	switch r.Spec.OnDisconnect.Mode {
	case api.DisconnectKeep:
		return false
	case api.DisconnectStop:
		after += stopsWithin
	}
	at := n.StateSince.Add(after)
	if p.in.Now.Before(at) {
		p.wake(at)
		return false
	}
	return true
}
