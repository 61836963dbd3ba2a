package state

import (
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// standingBy is a workload on pi, which is silent, with a standby on nas.
func standingBy(t *testing.T) *cluster {
	c := webOn(t, "pi")
	c.join("nas")
	c.must(SetNodeState{ID: nodeID("pi"), From: api.NodeReady, To: api.NodeSuspect, Now: c.now})
	c.must(CommitPlan{Place: []Placement{{Workload: "web", Generation: 2, Revision: 1, Node: nodeID("nas"), Standby: true}}, Now: c.now})
	if r := c.replica("web.0.2"); r.Desired != api.DesiredStandby || r.State != api.ReplicaAssigned {
		t.Fatalf("%+v", r)
	}
	return c
}

func TestStandbyIsPromotedWhenTheNodeIsDown(t *testing.T) {
	c := standingBy(t)
	c.must(SetNodeState{ID: nodeID("pi"), From: api.NodeSuspect, To: api.NodeDown, Now: c.now})
	index := c.View().Index()
	c.must(ReportNode{Report: api.NodeReport{Node: nodeID("nas"), Incarnation: 1,
		Replicas: []api.ReplicaReport{{ID: "web.0.2", State: api.ReplicaPreparing}}}, Now: c.now}) // does not make the plan stale
	c.must(CommitPlan{Index: index, Promote: []api.ReplicaID{"web.0.2"}, Now: c.now})
	if r := c.replica("web.0.2"); r.Desired != api.DesiredRun || r.State != api.ReplicaPreparing {
		t.Errorf("%+v", r)
	}
}

func TestStandbyIsDroppedWithoutATrace(t *testing.T) {
	c := standingBy(t)
	c.must(SetNodeState{ID: nodeID("pi"), From: api.NodeSuspect, To: api.NodeReady, Now: c.now})
	c.must(CommitPlan{Drop: []api.ReplicaID{"web.0.2"}, Now: c.now})
	if got := c.View().ReplicasOf("web"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	c.must(CommitPlan{Stop: []StopReplica{{ID: "web.0.1"}}, Place: []Placement{{Workload: "web", Slot: 1, Generation: 1, Revision: 1, Node: nodeID("nas")}}, Now: c.now})
	if _, ok := c.View().Replica("web.1.1"); ok {
		t.Error("slot 1 is given a generation that was used before")
	}
}

func TestStandbyOnANodeThatDiesIsForgotten(t *testing.T) {
	c := standingBy(t)
	c.must(SetNodeState{ID: nodeID("nas"), From: api.NodeReady, To: api.NodeDown, Now: c.now})
	if got := c.View().ReplicasOf("web"); len(got) != 1 || got[0].State.Terminal() {
		t.Errorf("%+v", got)
	}
}

func TestStandbysThatMakeNoSenseAreRefused(t *testing.T) {
	c := standingBy(t)
	second := Placement{Workload: "web", Generation: 3, Revision: 1, Node: nodeID("nas"), Standby: true}
	c.refuse(api.KindConflict, CommitPlan{Place: []Placement{second}, Now: c.now})
	second.Slot = 1
	c.refuse(api.KindConflict, CommitPlan{Place: []Placement{second}, Now: c.now})
	c.refuse(api.KindConflict, CommitPlan{Drop: []api.ReplicaID{"web.0.1"}, Now: c.now})
	c.refuse(api.KindConflict, CommitPlan{Promote: []api.ReplicaID{"web.0.1"}, Now: c.now})
	c.must(SetNodeState{ID: nodeID("pi"), From: api.NodeSuspect, To: api.NodeReady, Now: c.now})
	c.refuse(api.KindConflict, CommitPlan{Promote: []api.ReplicaID{"web.0.2"}, Now: c.now}) // its slot is held
}
