package state

import (
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func TestStalePlansAreRefused(t *testing.T) {
	yes := true
	put := func(name string, gen, rev int) Placement {
		return Placement{Workload: "web", Slot: 1, Generation: gen, Revision: rev, Node: nodeID(name)}
	}
	for _, tt := range []struct {
		name      string
		meanwhile Command // nil when the plan itself is wrong
		plan      CommitPlan
	}{
		{"unknown node", nil, CommitPlan{Place: []Placement{put("nobody", 1, 1)}}},
		{"unknown workload", nil, CommitPlan{Place: []Placement{{Workload: "db", Revision: 1, Node: nodeID("pi")}}}},
		{"old revision", nil, CommitPlan{Place: []Placement{put("pi", 1, 0)}}},
		{"slot is taken", nil, CommitPlan{Place: []Placement{{Workload: "web", Slot: 0, Generation: 2, Revision: 1, Node: nodeID("nas")}}}},
		{"slot twice", nil, CommitPlan{Place: []Placement{put("pi", 1, 1), put("nas", 2, 1)}}},
		{"unknown replica", nil, CommitPlan{Stop: []StopReplica{{ID: "web.7.1"}}}},
		{"living replica forgotten", nil, CommitPlan{Forget: []api.ReplicaID{"web.0.1"}}},
		{"node went suspect", SetNodeState{ID: nodeID("pi"), From: api.NodeReady, To: api.NodeSuspect}, CommitPlan{Place: []Placement{put("pi", 1, 1)}}},
		{"node was cordoned", UpdateNode{ID: nodeID("pi"), Cordon: &yes}, CommitPlan{Place: []Placement{put("pi", 1, 1)}}},
		{"node changed", UpdateNode{ID: nodeID("pi"), SetLabels: map[string]string{"a": "b"}}, CommitPlan{Place: []Placement{put("pi", 1, 1)}}},
		{"workload was deleted", DeleteWorkload{Name: "web"}, CommitPlan{Place: []Placement{put("pi", 1, 1)}}},
		{"workload was scaled", ScaleWorkload{Name: "web", Replicas: 1}, CommitPlan{Place: []Placement{put("pi", 1, 1)}}},
		{"replica moved on", ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 1, Replicas: []api.ReplicaReport{{ID: "web.0.1", State: api.ReplicaReady}}}},
			CommitPlan{Stop: []StopReplica{{ID: "web.0.1"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.join("pi", "nas")
			c.must(PutWorkload{Name: "web", Spec: webSpec(2), Now: c.now})
			c.place("pi")
			tt.plan.Index = c.View().Index()
			if tt.meanwhile != nil {
				c.must(tt.meanwhile)
			}
			before := len(c.View().Replicas())
			good := Placement{Workload: "web", Slot: 9, Generation: 1, Revision: 1, Node: nodeID("nas")}
			tt.plan.Place = append([]Placement{good}, tt.plan.Place...)
			c.refuse(api.KindConflict, tt.plan)
			if got := len(c.View().Replicas()); got != before {
				t.Errorf("a part of the plan was carried out: %d replicas", got)
			}
		})
	}
}

func TestReplacementMayJoinWhileTheNodeTakesNoWork(t *testing.T) {
	for _, state := range []api.NodeState{api.NodeSuspect, api.NodeCutOff, api.NodeDraining} {
		c := webOn(t, "pi")
		c.join("nas")
		c.must(SetNodeState{ID: nodeID("pi"), From: api.NodeReady, To: state, Now: c.now})
		c.must(CommitPlan{Place: []Placement{{Workload: "web", Generation: 2, Revision: 1, Node: nodeID("nas")}}, Now: c.now})
		if got := c.View().ReplicasOf("web"); len(got) != 2 {
			t.Errorf("%s: %v", state, got)
		}
	}
}

func TestStopAndPlaceInOnePlan(t *testing.T) {
	c := webOn(t, "pi")
	c.join("nas")
	spec := webSpec(1)
	spec.Image = "docker.io/library/web:2"
	c.must(PutWorkload{Name: "web", Spec: spec, Now: c.now})
	c.must(CommitPlan{Index: c.View().Index(), Place: []Placement{{Workload: "web", Generation: 2, Revision: 2, Node: nodeID("nas"), Decision: "room"}},
		Stop: []StopReplica{{ID: "web.0.1", Reason: "replaced"}}, Now: c.now})
	if old := c.replica("web.0.1"); old.Desired != api.DesiredStop || old.Reason != "replaced" || old.Spec.Image != "docker.io/library/web:1" {
		t.Errorf("old %+v", old)
	}
	if fresh := c.replica("web.0.2"); fresh.Spec.Image != spec.Image || fresh.Decision != "room" || fresh.Desired != api.DesiredRun {
		t.Errorf("new %+v", fresh)
	}
}

func TestGenerationIsNeverUsedTwice(t *testing.T) {
	c := webOn(t, "pi")
	c.report("pi", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaFailed})
	c.must(CommitPlan{Forget: []api.ReplicaID{"web.0.1", "web.5.1"}, Now: c.now})
	if got := c.place("pi")[0].ID; got != "web.0.2" {
		t.Errorf("placed %s", got)
	}
}

func TestHistoryOfASlotIsBounded(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	c.must(PutWorkload{Name: "web", Spec: webSpec(1), Now: c.now})
	for range 6 {
		id := c.place("pi")[0].ID
		c.report("pi", api.ReplicaReport{ID: id, State: api.ReplicaFailed})
	}
	got := c.View().ReplicasOf("web")
	if len(got) != MaxTerminalPerSlot || got[0].Generation != 4 {
		t.Errorf("%d are remembered: %v", len(got), got)
	}
}

func TestMinAvailable(t *testing.T) {
	ready := func(c *cluster, name string, id api.ReplicaID) {
		c.report(name, api.ReplicaReport{ID: id, State: api.ReplicaReady})
	}
	c := webOn(t, "pi", "nas", "vps") // minAvailable is 2 by default
	stop := func(ids ...api.ReplicaID) CommitPlan {
		p := CommitPlan{Now: c.now}
		for _, id := range ids {
			p.Stop = append(p.Stop, StopReplica{ID: id, Reason: "test"})
		}
		return p
	}
	ready(c, "pi", "web.0.1")
	ready(c, "nas", "web.1.1")
	c.refuse(api.KindConflict, stop("web.0.1")) // would leave one
	c.must(stop("web.2.1"))                     // does not serve
	c.must(CommitPlan{Place: []Placement{{Workload: "web", Slot: 2, Generation: 2, Revision: 1, Node: nodeID("vps")}}, Now: c.now})
	ready(c, "vps", "web.2.2")
	c.refuse(api.KindConflict, stop("web.0.1", "web.1.1"))
	c.must(stop("web.0.1"))
	c.must(ScaleWorkload{Name: "web", Replicas: 1, Now: c.now})
	c.must(stop("web.1.1")) // one replica is wanted, and none has to be available
	c.must(DeleteWorkload{Name: "web", Now: c.now})
	c.must(stop("web.2.2"))
}

func TestNotesOnUnplacedReplicas(t *testing.T) {
	c := newCluster(t)
	c.must(PutWorkload{Name: "web", Spec: webSpec(2), Now: c.now}, PutWorkload{Name: "db", Spec: webSpec(1), Now: c.now})
	note := func(notes map[string]string) string {
		return codes(c.must(CommitPlan{Unplaced: notes, Now: c.now}).Events)
	}
	if got, want := note(map[string]string{"web": "no node has 2 cores free", "db": "no node", "gone": "x"}), "CLD2002 db; CLD2002 web; "; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if got := note(map[string]string{"web": "no node has 2 cores free"}); got != "" {
		t.Errorf("the same again: %q", got)
	}
	if v := c.View(); v.Unplaced("web") != "no node has 2 cores free" || v.Unplaced("db") != "" || v.Unplaced("gone") != "" {
		t.Errorf("notes: %q, %q", v.Unplaced("web"), v.Unplaced("db"))
	}
	long := strings.Repeat("ä", maxText)
	note(map[string]string{"web": long})
	if got := c.View().Unplaced("web"); len(got) > maxText+len("…") || !strings.HasPrefix(long, strings.TrimSuffix(got, "…")) {
		t.Errorf("the note has %d bytes", len(got))
	}
}
