package state

import (
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// webOn returns a cluster with one replica of web on each of the nodes.
func webOn(t testing.TB, names ...string) *cluster {
	c := newCluster(t)
	c.join(names...)
	c.must(PutWorkload{Name: "web", Spec: webSpec(len(names)), Now: c.now})
	c.place(names...)
	return c
}

func TestReportsMoveReplicasForwardOnly(t *testing.T) {
	c := webOn(t, "pi")
	const id = "web.0.1"
	for _, tt := range []struct {
		report   api.ReplicaState
		restarts int
		want     api.ReplicaState
		events   string
	}{
		{api.ReplicaPreparing, 0, api.ReplicaPreparing, ""},
		{api.ReplicaStarting, 0, api.ReplicaStarting, ""},
		{api.ReplicaPreparing, 0, api.ReplicaStarting, ""}, // overtaken
		{api.ReplicaReady, 0, api.ReplicaReady, "CLD2003 web.0.1; "},
		{api.ReplicaNotReady, 0, api.ReplicaNotReady, ""},
		{api.ReplicaReady, 0, api.ReplicaReady, "CLD2003 web.0.1; "},
		{api.ReplicaRunning, 0, api.ReplicaReady, ""},                      // overtaken
		{api.ReplicaStarting, 1, api.ReplicaNotReady, "CLD2004 web.0.1; "}, // its process came up again
		{api.ReplicaReady, 0, api.ReplicaNotReady, ""},                     // from before the restart
		{api.ReplicaReady, 3, api.ReplicaReady, "CLD2004 web.0.1; CLD2003 web.0.1; "},
		{api.ReplicaUnknown, 3, api.ReplicaReady, ""}, // not for a node to say
		{api.ReplicaPending, 3, api.ReplicaReady, ""},
		{"Nonsense", 3, api.ReplicaReady, ""},
		{api.ReplicaStopping, 3, api.ReplicaStopping, ""},
		{api.ReplicaReady, 3, api.ReplicaStopping, ""},
		{api.ReplicaFailed, 3, api.ReplicaFailed, "CLD2005 web.0.1; "},
		{api.ReplicaReady, 4, api.ReplicaFailed, ""}, // final
	} {
		res := c.report("pi", api.ReplicaReport{ID: id, State: tt.report, Restarts: tt.restarts})
		if got := c.replica(id).State; got != tt.want || codes(res.Events) != tt.events {
			t.Errorf("report %s, %d restarts: got %s and %q, want %s and %q", tt.report, tt.restarts, got, codes(res.Events), tt.want, tt.events)
		}
	}
}

func TestReportsThatSayNothingNewWakeNobody(t *testing.T) {
	c := webOn(t, "pi")
	rep := ReportNode{Report: api.NodeReport{
		Node: nodeID("pi"), Incarnation: 1, Inventory: &api.Inventory{Arch: "amd64", Worker: true, Name: "another"},
		Replicas: []api.ReplicaReport{{ID: "web.0.1", State: api.ReplicaReady, Address: "10.214.0.2", StartedAt: epoch}}, Complete: true,
	}, Now: c.now}
	c.must(rep)
	before, changed := c.Watch()
	res := c.must(rep)
	if isClosed(changed) || len(res.Events) > 0 {
		t.Error("a repeated report changed something")
	}
	if v := c.View(); v.Index() != before.Index()+1 {
		t.Errorf("index %d after %d", v.Index(), before.Index())
	}
	if n, _ := c.View().Node(nodeID("pi")); n.Inventory.Name != "pi" {
		t.Errorf("the report renamed the node to %s", n.Inventory.Name)
	}
}

func TestReportsOfOthersAreIgnored(t *testing.T) {
	c := webOn(t, "pi", "nas")
	c.report("nas", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaFailed}, api.ReplicaReport{ID: "db.0.1", State: api.ReplicaReady})
	if got := c.replica("web.0.1").State; got != api.ReplicaAssigned {
		t.Errorf("another node's word counts: %s", got)
	}
	c.must(ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 5}, Now: c.now})
	c.refuse(api.KindConflict, ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 4}, Now: c.now})
	c.refuse(api.KindInvalid, ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 5, Inventory: &api.Inventory{Capacity: api.Resources{CPU: -1}}}, Now: c.now})
}

func TestCompleteReportTellsWhatIsAbsent(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	c.must(PutWorkload{Name: "web", Spec: webSpec(3), Now: c.now})
	c.place("pi", "pi", "pi")
	c.report("pi", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaReady}, api.ReplicaReport{ID: "web.1.1", State: api.ReplicaRunning})
	c.must(CommitPlan{Stop: []StopReplica{{ID: "web.1.1", Reason: "scaled down"}}, Now: c.now})
	res := c.must(ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 2, Complete: true}, Now: c.now})
	if got, want := codes(res.Events), "CLD2007 web.1.1; "; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	for id, want := range map[api.ReplicaID]api.ReplicaState{
		"web.0.1": api.ReplicaNotReady, // was working, and will be made anew
		"web.1.1": api.ReplicaStopped,
		"web.2.1": api.ReplicaAssigned, // may not have reached the node yet
	} {
		if got := c.replica(id); got.State != want {
			t.Errorf("%s is %s (%s), want %s", id, got.State, got.Reason, want)
		}
	}
	if got := c.replica("web.1.1").Reason; got != "scaled down" {
		t.Errorf("the reason of the stop became %q", got)
	}
}

func TestHoldersOfImages(t *testing.T) {
	c := newCluster(t)
	c.join("pi", "nas")
	img := api.Image{Ref: "docker.io/library/web:1", Digest: "sha256:1", Holders: []api.NodeID{nodeID("pi"), "stranger"}}
	c.must(PutImage{Image: img, Now: c.now})
	c.must(PutImage{Image: api.Image{Ref: "docker.io/library/db:1", Digest: "sha256:2"}, Now: c.now})
	holders := func(name string, want int) {
		t.Helper()
		if i, _ := c.View().Image("docker.io/library/" + name + ":1"); len(i.Holders) != want {
			t.Errorf("%s is held by %v, want %d", name, i.Holders, want)
		}
	}
	holders("web", 1)
	report := func(complete bool, refs ...string) {
		c.must(ReportNode{Report: api.NodeReport{Node: nodeID("nas"), Incarnation: 1, Images: refs, Complete: complete}, Now: c.now})
	}
	report(false, img.Ref, "docker.io/library/unknown:1")
	holders("web", 2)
	report(false, "docker.io/library/db:1")
	holders("web", 2)
	holders("db", 1)
	report(true, "docker.io/library/db:1")
	holders("web", 1)
	c.must(PutImage{Image: img, Now: c.now}) // again: keeps what is known
	holders("web", 1)
	c.must(RemoveNode{ID: nodeID("pi"), Now: c.now})
	holders("web", 0)
	spec := webSpec(1)
	spec.Image = "web:1" // the short form means the same image
	c.must(PutWorkload{Name: "web", Spec: spec, Now: c.now})
	c.refuse(api.KindConflict, RemoveImage{Ref: img.Ref, Now: c.now})
	c.must(DeleteWorkload{Name: "web", Now: c.now})
	c.must(RemoveImage{Ref: img.Ref, Now: c.now})
	c.refuse(api.KindNotFound, RemoveImage{Ref: img.Ref, Now: c.now})
}
