package control

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is a real state store with two ready nodes.
type cluster struct {
	t     *testing.T
	store *state.Store
	index uint64
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, store: state.New()}
	c.apply(state.CreateCluster{Cluster: api.Cluster{ID: "c1", Name: "home", CreatedAt: epoch}})
	for i, id := range []api.NodeID{"n1", "n2"} {
		c.apply(state.EnrolNode{ID: id, Name: string(id), Serial: "1", Now: epoch})
		c.apply(state.ReportNode{Now: epoch, Report: api.NodeReport{Node: id, Incarnation: uint64(i + 1), Complete: true, Inventory: &api.Inventory{
			Name: string(id), Arch: "amd64", OS: "linux", Worker: true,
			Capacity: api.Resources{CPU: 4000, Memory: 8 << 30, Storage: 1 << 40, Bandwidth: 1e9},
		}}})
	}
	return c
}

func (c *cluster) apply(cmds ...state.Command) {
	c.t.Helper()
	c.index++
	if res := c.store.Apply(c.index, cmds); res.Err != nil {
		c.t.Fatalf("%T: %v", cmds[0], res.Err)
	}
}

// web applies a workload of two replicas and places them, one on each node.
func (c *cluster) web() {
	spec := api.WorkloadSpec{Image: "docker.io/library/web:1", Replicas: 2, Ports: []api.Port{{Port: 80}}}
	spec.SetDefaults()
	c.apply(state.PutWorkload{Name: "web", Spec: spec, Now: epoch})
	c.apply(state.CommitPlan{Now: epoch, Place: []state.Placement{
		{Workload: "web", Slot: 0, Generation: 1, Revision: 1, Node: "n1"},
		{Workload: "web", Slot: 1, Generation: 1, Revision: 1, Node: "n2"},
	}})
}

func (c *cluster) report(node api.NodeID, incarnation uint64, reports ...api.ReplicaReport) {
	c.t.Helper()
	c.apply(state.ReportNode{Now: epoch, Report: api.NodeReport{Node: node, Incarnation: incarnation, Replicas: reports, Complete: true}})
}

func (c *cluster) status() api.WorkloadStatus {
	view := c.store.View()
	w, ok := view.Workload("web")
	if !ok {
		c.t.Fatal("no workload web")
	}
	return workloadStatus(view, w)
}

func TestWorkloadStatus(t *testing.T) {
	c := newCluster(t)
	c.web()
	if st := c.status(); st.State != api.WorkloadProgressing || st.Ready != 0 {
		t.Errorf("assigned: %s with %d ready", st.State, st.Ready)
	}
	ready := func(id string) api.ReplicaReport {
		return api.ReplicaReport{ID: api.ReplicaID(id), State: api.ReplicaReady, Address: "10.214.0.2"}
	}
	c.report("n1", 1, ready("web.0.1"))
	c.report("n2", 2, ready("web.1.1"))
	if st := c.status(); st.State != api.WorkloadHealthy || st.Ready != 2 || st.Running != 2 {
		t.Errorf("both ready: %s with %d ready", st.State, st.Ready)
	}

	// A node out of sight takes its replicas out of health and out of service,
	// although nobody said that they stopped.
	c.apply(state.SetNodeState{ID: "n2", From: api.NodeReady, To: api.NodeSuspect, Reason: "silent", Now: epoch})
	st := c.status()
	if st.State == api.WorkloadHealthy || st.Ready != 1 || st.Replicas[1].State != api.ReplicaUnknown {
		t.Errorf("node suspect: %s with %d ready, replica %s", st.State, st.Ready, st.Replicas[1].State)
	}
	services := ServicesOf(c.store.View().For("n1", "n1"))
	if len(services) != 1 || len(services[0].Endpoints) != 2 {
		t.Fatalf("services: %+v", services)
	}
	for _, e := range services[0].Endpoints {
		if want := e.Node == "n1"; e.Ready != want {
			t.Errorf("endpoint on %s: ready is %v", e.Node, e.Ready)
		}
	}

	c.apply(state.SetNodeState{ID: "n2", From: api.NodeSuspect, To: api.NodeDown, Reason: "silent", Now: epoch})
	c.apply(state.CommitPlan{Now: epoch, Unplaced: map[string]string{"web": "0 of 2 nodes fit"}})
	if st := c.status(); st.State != api.WorkloadDegraded || st.Message != "0 of 2 nodes fit" {
		t.Errorf("node down, nowhere to go: %s (%s)", st.State, st.Message)
	}
}

func TestCompletedWorkloadIsHealthy(t *testing.T) {
	for _, policy := range []string{api.RestartNever, api.RestartOnFailure} {
		c := newCluster(t)
		spec := api.WorkloadSpec{Image: "docker.io/library/web:1", Replicas: 2, Restart: api.RestartPolicy{Policy: policy}}
		spec.SetDefaults()
		c.apply(state.PutWorkload{Name: "web", Spec: spec, Now: epoch})
		c.apply(state.CommitPlan{Now: epoch, Place: []state.Placement{
			{Workload: "web", Slot: 0, Generation: 1, Revision: 1, Node: "n1"},
			{Workload: "web", Slot: 1, Generation: 1, Revision: 1, Node: "n2"},
		}})
		report := func(node api.NodeID, incarnation uint64, id api.ReplicaID, s api.ReplicaState, reason string) {
			c.report(node, incarnation, api.ReplicaReport{ID: id, State: s, Reason: reason})
		}
		report("n1", 1, "web.0.1", api.ReplicaStopped, "ended with code 0")
		if st := c.status(); st.State != api.WorkloadProgressing {
			t.Errorf("%s, one ended, one under way: %s (%s)", policy, st.State, st.Message)
		}
		report("n2", 2, "web.1.1", api.ReplicaReady, "")
		if st := c.status(); st.State != api.WorkloadHealthy || st.Message != "" {
			t.Errorf("%s, one ended, one ready: %s (%s)", policy, st.State, st.Message)
		}
		report("n2", 2, "web.1.1", api.ReplicaStopped, "ended with code 0")
		c.apply(state.CommitPlan{Now: epoch, Unplaced: map[string]string{"web": "of an older plan"}})
		if st := c.status(); st.State != api.WorkloadHealthy || st.Message != "ended with code 0" {
			t.Errorf("%s, both ended: %s (%s)", policy, st.State, st.Message)
		}
	}
}

func TestFailedWorkloadIsNotHealthy(t *testing.T) {
	c := newCluster(t)
	spec := api.WorkloadSpec{Image: "docker.io/library/web:1", Replicas: 1, Restart: api.RestartPolicy{Policy: api.RestartNever}}
	spec.SetDefaults()
	c.apply(state.PutWorkload{Name: "web", Spec: spec, Now: epoch})
	c.apply(state.CommitPlan{Now: epoch, Place: []state.Placement{{Workload: "web", Slot: 0, Generation: 1, Revision: 1, Node: "n1"}}})
	c.report("n1", 1, api.ReplicaReport{ID: "web.0.1", State: api.ReplicaFailed, Reason: "ended with code 3"})
	if st := c.status(); st.State != api.WorkloadFailed {
		t.Errorf("it is %s (%s)", st.State, st.Message)
	}
}

func TestRollout(t *testing.T) {
	c := newCluster(t)
	c.web()
	if r := c.status().Rollout; r != nil {
		t.Errorf("a first revision is rolled out: %+v", r)
	}
	c.report("n1", 1, api.ReplicaReport{ID: "web.0.1", State: api.ReplicaReady})
	c.report("n2", 2, api.ReplicaReport{ID: "web.1.1", State: api.ReplicaReady})
	spec := api.WorkloadSpec{Image: "docker.io/library/web:2", Replicas: 2, Ports: []api.Port{{Port: 80}}}
	spec.SetDefaults()
	c.apply(state.PutWorkload{Name: "web", Spec: spec, Now: epoch})
	want := api.Rollout{State: api.RolloutProgressing, Revision: 2, From: 1, Outdated: 2}
	if r := c.status().Rollout; r == nil || *r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	c.apply(state.CommitPlan{Now: epoch, Place: []state.Placement{{Workload: "web", Slot: 0, Generation: 2, Revision: 2, Node: "n1"}}})
	c.report("n1", 1, api.ReplicaReport{ID: "web.0.1", State: api.ReplicaStopped}, api.ReplicaReport{ID: "web.0.2", State: api.ReplicaReady})
	want.Updated, want.Outdated = 1, 1
	if r := c.status().Rollout; r == nil || *r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	lacks := "the rollout of revision 2 has stopped: it failed 3 times; revision 1 goes on serving"
	c.apply(state.CommitPlan{Now: epoch, Unplaced: map[string]string{"web": lacks}})
	want.State, want.Message = api.RolloutStopped, lacks
	if r := c.status().Rollout; r == nil || *r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
}
