package state

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// ReasonLeft is the reason of a node that said goodbye before it went down.
const ReasonLeft = "left"

// SetNodeState moves a node from one state to another; it refuses with
// KindConflict when the node is not in From any more. Down makes the node's
// replicas Lost; suspect and cut off leave them alone; draining cordons too,
// and lasts until the node is uncordoned.
type SetNodeState struct {
	ID     api.NodeID    `json:"id"`
	From   api.NodeState `json:"from"`
	To     api.NodeState `json:"to"`
	Reason string        `json:"reason"`
	Now    time.Time     `json:"now"`
}

// nodeEvents is what there is to tell about a node's new state.
var nodeEvents = map[api.NodeState]struct {
	code         api.Code
	reason, text string
}{
	api.NodeReady:    {api.CodeNodeReady, "Ready", "is ready"},
	api.NodeSuspect:  {api.CodeNodeSuspect, "Silent", "is silent"},
	api.NodeCutOff:   {api.CodeNodeCutOff, "CutOff", "is cut off"},
	api.NodeDown:     {api.CodeNodeDown, "Down", "is down"},
	api.NodeDraining: {api.CodeNodeCordoned, "Draining", "is being drained"},
}

func (c SetNodeState) apply(t *tx) (any, error) {
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return nil, notFound("node", string(c.ID))
	}
	if _, ok := nodeEvents[c.To]; !ok {
		return nil, api.Invalid("to", "a node is not put into the state %q", clip(string(c.To)))
	}
	if old.State != c.From {
		return nil, api.Errorf(api.KindConflict, "node %s is %s, not %s", old.Inventory.Name, old.State, c.From)
	}
	if old.State == c.To {
		return *old, nil
	}
	n := *old
	if c.To == api.NodeDraining {
		n.Cordoned, n.Draining = true, true
	}
	t.moveNode(&n, c.To, c.Reason, c.Now)
	if c.To == api.NodeDown {
		t.loseReplicas(&n, "node down: "+n.StateReason, c.Now)
	}
	return n, nil
}

// moveNode puts a changed node into a state and tells about it. One that was
// being drained when it fell silent is drained again when it is back. Whichever
// way it comes back from being cut off, by a report, a heartbeat or the word of a
// witness, what it has stopped meanwhile is out of service.
func (t *tx) moveNode(n *api.Node, to api.NodeState, reason string, now time.Time) {
	if to == api.NodeReady && n.Draining {
		to = api.NodeDraining
	}
	if n.State == api.NodeCutOff && to != api.NodeDown {
		t.stoppedOffline(n, now)
	}
	n.Unstable = n.Unstable && to == api.NodeSuspect
	n.State, n.StateSince, n.StateReason, n.Version = to, now, clip(reason), t.index
	nodes.put(t, n)
	e := nodeEvents[to]
	if to == api.NodeDown && reason == ReasonLeft {
		e.code, e.reason, e.text = api.CodeNodeLeft, "Left", "has left"
	}
	t.nodeEvent(e.code, now, e.reason, n, "node %s %s: %s", n.Inventory.Name, e.text, n.StateReason)
}

// stoppedOffline puts out of service what a node that was cut off must have
// stopped by itself. Its report will say what became of it; until then such a
// replica must not win its slot back from one that serves.
func (t *tx) stoppedOffline(n *api.Node, now time.Time) {
	for _, old := range replicas.list(t.txn, "node", pair(string(n.ID), "")) {
		d := old.Spec.OnDisconnect
		if old.State == api.ReplicaReady && d.Mode == api.DisconnectStop && now.Sub(n.StateSince) >= d.After.Std() {
			r := *old
			r.Reason = "stopped by its node while that was cut off"
			t.moveReplica(&r, api.ReplicaNotReady, now)
		}
	}
}

// loseReplicas ends every replica of a node that will not be heard again.
func (t *tx) loseReplicas(n *api.Node, reason string, now time.Time) {
	for _, old := range replicas.list(t.txn, "node", pair(string(n.ID), "")) {
		if old.State.Terminal() {
			continue
		}
		if old.Desired == api.DesiredStandby {
			t.drop(old, now)
			continue
		}
		r := *old
		r.Reason = reason
		t.moveReplica(&r, api.ReplicaLost, now)
		t.replicaEvent(api.CodeReplicaLost, now, "Lost", &r, "replica %s was lost with node %s", r.ID, n.Inventory.Name)
		t.ended(&r, now)
	}
}
