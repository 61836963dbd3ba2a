package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func TestRevisionsOfAWorkload(t *testing.T) {
	c := newCluster(t)
	spec := webSpec(2)
	put := func(expect uint64) PutWorkload {
		return PutWorkload{Name: "web", Spec: spec, ExpectVersion: expect, Now: c.now}
	}
	c.refuse(api.KindConflict, put(7))
	w, _ := ValueOf[api.Workload](c.must(put(0)))
	if w.Revision != 1 || w.Version != c.index {
		t.Errorf("created %+v", w)
	}
	_, changed := c.Watch()
	if c.must(put(0)); isClosed(changed) {
		t.Error("applying the same twice changes something")
	}
	spec.Replicas = 3
	w, _ = ValueOf[api.Workload](c.must(put(w.Version)))
	if w.Revision != 1 || w.Spec.Replicas != 3 {
		t.Errorf("the number of replicas makes a revision: %+v", w)
	}
	spec.Image = "docker.io/library/web:2"
	c.refuse(api.KindConflict, put(w.Version-1))
	w, _ = ValueOf[api.Workload](c.must(put(w.Version)))
	if w.Revision != 2 {
		t.Errorf("another image makes no revision: %+v", w)
	}
	res := c.must(ScaleWorkload{Name: "web", Replicas: 5, ExpectVersion: w.Version, Now: c.now})
	w, _ = ValueOf[api.Workload](res)
	if w.Spec.Replicas != 5 || w.Revision != 2 || codes(res.Events) != "CLD2011 web; " {
		t.Errorf("scaled %+v, %s", w, codes(res.Events))
	}
	c.refuse(api.KindInvalid, ScaleWorkload{Name: "web", Replicas: -1, Now: c.now})
	c.refuse(api.KindNotFound, ScaleWorkload{Name: "db", Replicas: 1, Now: c.now})
}

func TestRestartIsARevision(t *testing.T) {
	c := newCluster(t)
	c.must(PutWorkload{Name: "web", Spec: webSpec(2), Now: c.now})
	before, _ := c.View().Workload("web")
	res := c.must(RestartWorkload{Name: "web", ExpectVersion: before.Version, Now: c.now})
	w, _ := ValueOf[api.Workload](res)
	if w.Revision != 2 || w.Spec.Image != before.Spec.Image || w.Spec.Replicas != 2 || len(res.Events) != 1 {
		t.Errorf("restarted %+v, %s", w, codes(res.Events))
	}
	c.refuse(api.KindConflict, RestartWorkload{Name: "web", ExpectVersion: before.Version, Now: c.now})
	c.refuse(api.KindNotFound, RestartWorkload{Name: "db", Now: c.now})
	// The same manifest once more is no change.
	res = c.must(PutWorkload{Name: "web", Spec: webSpec(2), Now: c.now})
	if w, _ := ValueOf[api.Workload](res); w.Revision != 2 {
		t.Errorf("applied again: %+v", w)
	}
}

func TestWorkloadIsValidated(t *testing.T) {
	for name, cmd := range map[string]PutWorkload{
		"no name":         {Spec: webSpec(1)},
		"name with a dot": {Name: "a.b", Spec: webSpec(1)},
		"long name":       {Name: strings.Repeat("a", 64), Spec: webSpec(1)},
		"no image":        {Name: "web", Spec: api.WorkloadSpec{Replicas: 1}},
		"too many":        {Name: "web", Spec: webSpec(MaxReplicas + 1)},
		"too many ports":  {Name: "web", Spec: api.WorkloadSpec{Image: "i", Ports: make([]api.Port, maxPorts+1)}},
	} {
		if res := New().Apply(1, []Command{cmd}); api.KindOf(res.Err) != api.KindInvalid {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
}

func TestServiceFollowsThePorts(t *testing.T) {
	c := newCluster(t)
	spec := webSpec(1)
	c.must(PutWorkload{Name: "web", Spec: spec, Now: c.now})
	first, _ := c.View().Service("web")
	spec.Ports = append(spec.Ports, api.Port{Port: 443})
	c.must(PutWorkload{Name: "web", Spec: spec, Now: c.now})
	second, _ := c.View().Service("web")
	if second.VIP != first.VIP || len(second.Ports) != 2 || second.Version <= first.Version {
		t.Errorf("%+v became %+v", first, second)
	}
	spec.Ports = nil
	c.must(PutWorkload{Name: "web", Spec: spec, Now: c.now})
	if _, ok := c.View().Service("web"); ok {
		t.Error("a workload without ports has a service")
	}
	c.must(DeleteWorkload{Name: "web", Now: c.now}, PutWorkload{Name: "web", Spec: webSpec(1), Now: c.now})
	if again, _ := c.View().Service("web"); again.VIP != first.VIP {
		t.Errorf("made again it has %s instead of %s", again.VIP, first.VIP)
	}
}

func TestVIPsAreUniqueAndInRange(t *testing.T) {
	c := newCluster(t)
	seen := map[string]bool{}
	for i := range 500 { // enough for collisions of the hash
		c.must(PutWorkload{Name: fmt.Sprintf("w%d", i), Spec: webSpec(0), Now: c.now})
	}
	for _, s := range c.View().Services() {
		if seen[s.VIP] {
			t.Errorf("%s is given twice", s.VIP)
		}
		seen[s.VIP] = true
	}
	for i, want := range map[uint32]string{0: "10.213.1.1", 253: "10.213.1.254", 254: "10.213.2.1", vips - 1: "10.213.127.254"} {
		if got := vip(i); got != want {
			t.Errorf("vip(%d) = %s, want %s", i, got, want)
		}
	}
}

func TestDeletedWorkloadVanishesWithItsLastReplica(t *testing.T) {
	c := webOn(t, "pi", "nas")
	c.must(DeleteWorkload{Name: "web", Now: c.now})
	c.refuse(api.KindNotFound, DeleteWorkload{Name: "web", Now: c.now})
	c.must(CommitPlan{Stop: []StopReplica{{ID: "web.0.1"}, {ID: "web.1.1"}}, Now: c.now})
	c.report("pi", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaStopped})
	if w, ok := c.View().Workload("web"); !ok || !w.Deleted {
		t.Errorf("workload %+v", w)
	}
	res := c.must(SetNodeState{ID: nodeID("nas"), From: api.NodeReady, To: api.NodeDown, Now: c.now})
	if got, want := codes(res.Events), "CLD1004 nas; CLD2006 web.1.1; CLD2012 web; "; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	v := c.View()
	_, service := v.Service("web")
	if _, ok := v.Workload("web"); ok || service || len(v.Replicas()) > 0 {
		t.Error("something is left")
	}
	// Made again, it never reuses the ID of a replica.
	c.must(PutWorkload{Name: "web", Spec: webSpec(1), Now: c.now})
	if got := c.place("pi")[0].ID; got != "web.0.2" {
		t.Errorf("placed %s", got)
	}
}

func TestApplyingADeletedWorkloadRevivesIt(t *testing.T) {
	c := webOn(t, "pi")
	c.must(DeleteWorkload{Name: "web", Now: c.now})
	w, _ := ValueOf[api.Workload](c.must(PutWorkload{Name: "web", Spec: webSpec(1), Now: c.now}))
	if w.Deleted || w.Revision != 2 {
		t.Errorf("revived %+v", w)
	}
}

func TestMemoryOfDeletedWorkloadsIsBounded(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	for i := range MaxDeletedGenerations + 5 {
		name := fmt.Sprintf("w%d", i)
		c.must(
			PutWorkload{Name: name, Spec: webSpec(1), Now: c.now},
			CommitPlan{Place: []Placement{{Workload: name, Generation: 1, Revision: 1, Node: nodeID("pi")}}, Now: c.now},
			ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 1,
				Replicas: []api.ReplicaReport{{ID: api.NewReplicaID(name, 0, 1), State: api.ReplicaFailed}}}, Now: c.now},
			DeleteWorkload{Name: name, Now: c.now},
		)
	}
	rows := generations.all(c.View().txn)
	if len(rows) != MaxDeletedGenerations || generations.get(c.View().txn, "w4") != nil || generations.get(c.View().txn, "w5") == nil {
		t.Errorf("%d are remembered, the oldest is not the one that went", len(rows))
	}
}
