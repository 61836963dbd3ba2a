package state

import (
	"fmt"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func enrol(c *cluster, id api.NodeID, name string) api.Node {
	c.t.Helper()
	n, ok := ValueOf[api.Node](c.must(EnrolNode{ID: id, Name: name, Serial: "s", Now: c.now}))
	if !ok {
		c.t.Fatal("no node came back")
	}
	return n
}

func TestNamesAndSubnetsAreUnique(t *testing.T) {
	c := newCluster(t)
	for _, tt := range []struct{ id, wish, name, subnet string }{
		{"a", "pi", "pi", "10.214.0.0/24"},
		{"b", "pi", "pi-2", "10.214.1.0/24"},
		{"c", "Anna's Pi", "anna-s-pi", "10.214.2.0/24"},
		{"d", "…", "node", "10.214.3.0/24"},
		{"e", "pi", "pi-3", "10.214.4.0/24"},
		{"b", "pi", "pi-2", "10.214.1.0/24"}, // renews its certificate
		{"e", "nas", "nas", "10.214.4.0/24"}, // renamed
	} {
		if n := enrol(c, api.NodeID(tt.id), tt.wish); n.Inventory.Name != tt.name || n.Subnet != tt.subnet {
			t.Errorf("%s as %q: got %s in %s, want %s in %s", tt.id, tt.wish, n.Inventory.Name, n.Subnet, tt.name, tt.subnet)
		}
	}
	c.must(RemoveNode{ID: "a", Reason: "sold", Now: c.now})
	if n := enrol(c, "f", "pi"); n.Inventory.Name != "pi" || n.Subnet != "10.214.0.0/24" {
		t.Errorf("what a removed node had is not free: %+v", n)
	}
	if n, ok := c.View().NodeByName("pi-2"); !ok || n.ID != "b" {
		t.Errorf("pi-2 is %s", n.ID)
	}
}

func TestRemovedNodeStaysOut(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	c.must(SetVoter{ID: nodeID("pi"), Voter: true})
	c.refuse(api.KindConflict, RemoveNode{ID: nodeID("pi"), Now: c.now})
	c.must(SetVoter{ID: nodeID("pi")})
	c.must(RemoveNode{ID: nodeID("pi"), Reason: "stolen", Now: c.now})
	if v := c.View(); !v.Revoked(nodeID("pi")) || len(v.Revocations()) != 1 || len(v.Nodes()) != 0 {
		t.Errorf("revocations %+v, nodes %+v", v.Revocations(), v.Nodes())
	}
	c.refuse(api.KindDenied, EnrolNode{ID: nodeID("pi"), Name: "pi", Now: c.now})
	c.refuse(api.KindNotFound, ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 2}, Now: c.now})
	c.refuse(api.KindNotFound, RemoveNode{ID: nodeID("pi"), Now: c.now})
}

func TestSubnetsRunOut(t *testing.T) {
	c := newCluster(t)
	for i := range 512 {
		enrol(c, api.NodeID(fmt.Sprintf("n%d", i)), "n")
	}
	c.refuse(api.KindExhausted, EnrolNode{ID: "one-more", Name: "n", Now: c.now})
	c.must(RemoveNode{ID: "n300", Now: c.now})
	if n := enrol(c, "one-more", "n"); n.Subnet != "10.215.44.0/24" || n.Inventory.Name != "n-301" {
		t.Errorf("got %s, %s", n.Inventory.Name, n.Subnet)
	}
}

func TestUpdateNode(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	yes, no := true, false
	id := nodeID("pi")
	res := c.must(UpdateNode{ID: id, SetLabels: map[string]string{"disk": "ssd", "gpu": "none"}, Cordon: &yes, Now: c.now})
	n, _ := ValueOf[api.Node](res)
	if v, _ := n.Label("disk"); v != "ssd" || !n.Cordoned || codes(res.Events) != "CLD1007 pi; " {
		t.Errorf("node %+v, events %s", n, codes(res.Events))
	}
	c.refuse(api.KindConflict, UpdateNode{ID: id, UnsetLabels: []string{"gpu"}, ExpectVersion: n.Version - 1, Now: c.now})
	c.must(UpdateNode{ID: id, UnsetLabels: []string{"gpu", "never"}, ExpectVersion: n.Version, Now: c.now})
	c.must(SetNodeState{ID: id, From: api.NodeReady, To: api.NodeDraining, Now: c.now})
	res = c.must(UpdateNode{ID: id, Cordon: &no, Now: c.now})
	n, _ = ValueOf[api.Node](res)
	if n.State != api.NodeReady || n.Cordoned || len(n.Labels) != 1 || codes(res.Events) != "CLD1008 pi; " {
		t.Errorf("node %+v, events %s", n, codes(res.Events))
	}
	_, changed := c.Watch()
	c.must(UpdateNode{ID: id, Cordon: &no, Now: c.now})
	if isClosed(changed) {
		t.Error("an update that changes nothing wakes watchers")
	}
	c.refuse(api.KindInvalid, UpdateNode{ID: id, SetLabels: map[string]string{"": "x"}, Now: c.now})
	c.refuse(api.KindNotFound, UpdateNode{ID: "nobody", Now: c.now})
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestNodeStates(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	c.must(PutWorkload{Name: "web", Spec: webSpec(1), Now: c.now})
	id := c.place("pi")[0].ID
	move := func(from, to api.NodeState, reason string) SetNodeState {
		return SetNodeState{ID: nodeID("pi"), From: from, To: to, Reason: reason, Now: c.now}
	}
	c.refuse(api.KindConflict, move(api.NodeSuspect, api.NodeDown, ""))
	c.refuse(api.KindInvalid, move(api.NodeReady, api.NodeRemoved, ""))
	for _, tt := range []struct {
		from, to api.NodeState
		reason   string
		events   string
		replica  api.ReplicaState
	}{
		{api.NodeReady, api.NodeSuspect, "silent", "CLD1003 pi; ", api.ReplicaAssigned},
		{api.NodeSuspect, api.NodeCutOff, "house dark", "CLD1009 pi; ", api.ReplicaAssigned},
		{api.NodeCutOff, api.NodeReady, "heard again", "CLD1002 pi; ", api.ReplicaAssigned},
		{api.NodeReady, api.NodeReady, "", "", api.ReplicaAssigned},
		{api.NodeReady, api.NodeDown, ReasonLeft, "CLD1005 pi; CLD2006 web.0.1; ", api.ReplicaLost},
	} {
		res := c.must(move(tt.from, tt.to, tt.reason))
		if got := codes(res.Events); got != tt.events || c.replica(id).State != tt.replica {
			t.Errorf("%s→%s: events %q, replica %s", tt.from, tt.to, got, c.replica(id).State)
		}
	}
	// It returns: ready, its lost replica stays lost and is not assigned to it.
	res := c.report("pi", api.ReplicaReport{ID: id, State: api.ReplicaReady})
	if got := codes(res.Events); got != "CLD1002 pi; " || c.replica(id).State != api.ReplicaLost {
		t.Errorf("return: events %q, replica %s", got, c.replica(id).State)
	}
	if got := c.View().Assigned(nodeID("pi")); len(got) != 0 {
		t.Errorf("assigned: %v", got)
	}
	if got := c.View().ReplicasOn(nodeID("pi")); len(got) != 1 {
		t.Errorf("history: %v", got)
	}
}
