package state

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// epoch is when every test begins.
var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// cluster drives a store as an anchor would: one index for each entry.
type cluster struct {
	*Store
	t     testing.TB
	index uint64
	now   time.Time
}

func newCluster(t testing.TB) *cluster { return &cluster{Store: New(), t: t, now: epoch} }

func (c *cluster) apply(cmds ...Command) Result {
	c.index++
	c.now = c.now.Add(time.Second)
	return c.Apply(c.index, cmds)
}

func (c *cluster) must(cmds ...Command) Result {
	c.t.Helper()
	res := c.apply(cmds...)
	if res.Err != nil {
		c.t.Fatalf("apply %T: %v", cmds[0], res.Err)
	}
	return res
}

func (c *cluster) refuse(kind api.Kind, cmds ...Command) {
	c.t.Helper()
	if res := c.apply(cmds...); api.KindOf(res.Err) != kind {
		c.t.Fatalf("apply %T: want an error of kind %s, got %v", cmds[0], kind, res.Err)
	}
}

// join enrols a node and lets it report.
func (c *cluster) join(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.must(EnrolNode{ID: nodeID(name), Name: name, Serial: "1", Now: c.now})
		c.must(ReportNode{Report: api.NodeReport{Node: nodeID(name), Incarnation: 1, Inventory: &api.Inventory{Arch: "amd64", Worker: true}}, Now: c.now})
	}
}

func nodeID(name string) api.NodeID { return api.NodeID("peer-" + name) }

func webSpec(replicas int) api.WorkloadSpec {
	return api.WorkloadSpec{Image: "docker.io/library/web:1", Replicas: replicas, Ports: []api.Port{{Port: 80, Target: 8080, Protocol: "tcp"}}}
}

// place puts generation 1 of slots 0… of web onto nodes.
func (c *cluster) place(on ...string) []api.Replica {
	c.t.Helper()
	var place []Placement
	for slot, name := range on {
		place = append(place, Placement{Workload: "web", Slot: slot, Generation: 1, Revision: 1, Node: nodeID(name)})
	}
	placed, ok := ValueOf[[]api.Replica](c.must(CommitPlan{Index: c.View().Index(), Place: place, Now: c.now}))
	if !ok || len(placed) != len(on) {
		c.t.Fatalf("placed %v", placed)
	}
	return placed
}

func (c *cluster) report(name string, reps ...api.ReplicaReport) Result {
	c.t.Helper()
	return c.must(ReportNode{Report: api.NodeReport{Node: nodeID(name), Incarnation: 1, Replicas: reps}, Now: c.now})
}

func (c *cluster) replica(id api.ReplicaID) api.Replica {
	c.t.Helper()
	r, ok := c.View().Replica(id)
	if !ok {
		c.t.Fatalf("there is no replica %s", id)
	}
	return r
}

func codes(events []api.Event) string {
	s := ""
	for _, e := range events {
		s += fmt.Sprintf("%s %s; ", e.Code, e.Object.Name)
	}
	return s
}

func token(id string, uses int) api.Token {
	sum := sha256.Sum256([]byte(id))
	return api.Token{ID: id, Role: api.RoleNode, SecretHash: sum[:], ExpiresAt: epoch.Add(15 * time.Minute), Uses: uses}
}

func TestFromNothingToReadyReplicas(t *testing.T) {
	c := newCluster(t)
	c.must(CreateCluster{Cluster: api.Cluster{ID: "cid", Name: "home", CreatedAt: epoch}})
	c.refuse(api.KindExists, CreateCluster{Cluster: api.Cluster{ID: "cid", Name: "home"}})
	c.join("pi", "nas", "vps")
	c.must(PutWorkload{Name: "web", Spec: webSpec(3), Now: c.now})
	for _, r := range c.place("pi", "nas", "vps") {
		res := c.must(ReportNode{Report: api.NodeReport{Node: r.Node, Incarnation: 1,
			Replicas: []api.ReplicaReport{{ID: r.ID, State: api.ReplicaReady, Address: "10.214.0.2"}}}, Now: c.now})
		if got, want := codes(res.Events), fmt.Sprintf("CLD2003 %s; ", r.ID); got != want {
			t.Errorf("events %q, want %q", got, want)
		}
	}
	v := c.View()
	if svc, ok := v.Service("web"); !ok || svc.VIP == "" || svc.DNS() != "web.cloudless.internal" {
		t.Errorf("service %+v", svc)
	}
	mine := v.For(nodeID("pi"), nodeID("vps"))
	if len(mine.Replicas) != 3 || mine.Replicas[0].Spec.Image == "" || mine.Replicas[1].Spec.Image != "" {
		t.Errorf("view for pi: %+v", mine.Replicas)
	}
	if n := v.LastEvent(); int(n) != len(v.EventsAfter(0, 1000)) || len(v.EventsAfter(n-2, 1000)) != 2 {
		t.Errorf("events do not number from 1 to %d", n)
	}
}
