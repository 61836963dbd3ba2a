package state

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// runs is a node's word that its replica has run since a time.
func runs(id api.ReplicaID, since time.Time) api.ReplicaReport {
	return api.ReplicaReport{ID: id, State: api.ReplicaReady, Address: "10.214.0.2", StartedAt: since}
}

func (c *cluster) hear(name string, incarnation uint64, unstable string, reports ...api.ReplicaReport) {
	c.t.Helper()
	c.must(ReportNode{Report: api.NodeReport{Node: nodeID(name), Incarnation: incarnation, Replicas: reports}, Unstable: unstable, Now: c.now})
}

func (c *cluster) move(name string, from, to api.NodeState) {
	c.t.Helper()
	c.must(SetNodeState{ID: nodeID(name), From: from, To: to, Reason: "test", Now: c.now})
}

func (c *cluster) node(name string) api.Node {
	c.t.Helper()
	n, ok := c.View().Node(nodeID(name))
	if !ok {
		c.t.Fatalf("no node %s", name)
	}
	return n
}

func TestProcessThatSurvivedItsDeathIsBack(t *testing.T) {
	c := webOn(t, "pi")
	since := epoch.Add(-time.Hour)
	c.hear("pi", 1, "", runs("web.0.1", since))
	for _, tt := range []struct {
		name string
		word api.ReplicaReport
		want api.ReplicaState
	}{
		{"another run", runs("web.0.1", since.Add(time.Second)), api.ReplicaLost},
		{"the same run, but ended", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaFailed, StartedAt: since}, api.ReplicaLost},
		{"the same run", runs("web.0.1", since), api.ReplicaReady},
	} {
		c.move("pi", c.node("pi").State, api.NodeDown)
		if r := c.replica("web.0.1"); r.State != api.ReplicaLost {
			t.Fatalf("%s: %+v", tt.name, r)
		}
		c.hear("pi", 1, "", tt.word)
		if r := c.replica("web.0.1"); r.State != tt.want {
			t.Errorf("%s: it is %s, want %s", tt.name, r.State, tt.want)
		}
	}
	c.must(DeleteWorkload{Name: "web", Now: c.now})
	c.move("pi", api.NodeReady, api.NodeDown)
	c.hear("pi", 1, "", runs("web.0.1", since))
	if got := c.View().ReplicasOf("web"); len(got) > 0 && !got[0].State.Terminal() {
		t.Errorf("a deleted workload came back: %+v", got)
	}
}

func TestUnstableNodeStaysOutOfServiceUntilItIsSteady(t *testing.T) {
	c := webOn(t, "pi")
	c.move("pi", api.NodeReady, api.NodeDown)
	for range 2 { // whatever it reports meanwhile
		c.hear("pi", 1, "away for 20s")
		if n := c.node("pi"); n.State != api.NodeSuspect || !n.Unstable || n.StateReason != "away for 20s" {
			t.Fatalf("%+v", n)
		}
	}
	c.move("pi", api.NodeSuspect, api.NodeReady)
	if n := c.node("pi"); n.State != api.NodeReady || n.Unstable {
		t.Errorf("%+v", n)
	}
}

func TestDrainingSurvivesSilence(t *testing.T) {
	for _, state := range []api.NodeState{api.NodeSuspect, api.NodeCutOff, api.NodeDown} {
		c := webOn(t, "pi")
		c.move("pi", api.NodeReady, api.NodeDraining)
		c.move("pi", api.NodeDraining, state)
		c.hear("pi", 1, "")
		if n := c.node("pi"); n.State != api.NodeDraining || !n.Cordoned {
			t.Errorf("after %s it is %s", state, n.State)
		}
		c.move("pi", api.NodeDraining, api.NodeSuspect)
		c.move("pi", api.NodeSuspect, api.NodeReady) // a verdict of the detector
		if n := c.node("pi"); n.State != api.NodeDraining {
			t.Errorf("after %s and another silence it is %s", state, n.State)
		}
		no := false
		c.must(UpdateNode{ID: nodeID("pi"), Cordon: &no, Now: c.now})
		c.move("pi", api.NodeReady, api.NodeSuspect)
		c.hear("pi", 1, "")
		if n := c.node("pi"); n.State != api.NodeReady || n.Cordoned {
			t.Errorf("uncordoned, and yet %+v", n)
		}
	}
}

func TestNodeMayGiveAReplicaUp(t *testing.T) {
	c := webOn(t, "pi")
	c.hear("pi", 1, "", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaLost, Reason: "no anchor was heard for 30s"})
	if r := c.replica("web.0.1"); r.State != api.ReplicaLost {
		t.Errorf("%+v", r)
	}
}

func TestWhatItsHouseStoppedDoesNotServeWhenItIsBack(t *testing.T) {
	unheard := func(c *cluster) { c.hear("pi", 2, "", api.ReplicaReport{ID: "web.0.1", State: api.ReplicaPreparing}) }
	ways := map[string]func(*cluster){
		"a heartbeat": func(c *cluster) { c.move("pi", api.NodeCutOff, api.NodeReady) },
		"a witness, then a heartbeat": func(c *cluster) {
			c.move("pi", api.NodeCutOff, api.NodeSuspect)
			c.move("pi", api.NodeSuspect, api.NodeReady)
		},
		"drained meanwhile":                  func(c *cluster) { c.move("pi", api.NodeCutOff, api.NodeDraining) },
		"the report of a daemon begun anew":  unheard,
		"a heartbeat, then that very report": func(c *cluster) { c.move("pi", api.NodeCutOff, api.NodeReady); unheard(c) },
	}
	for _, tt := range []struct {
		mode string
		long time.Duration
		want api.ReplicaState
	}{
		{api.DisconnectStop, 40 * time.Second, api.ReplicaNotReady},
		{api.DisconnectStop, 20 * time.Second, api.ReplicaReady},
		{api.DisconnectReplace, 40 * time.Second, api.ReplicaReady},
	} {
		for way, back := range ways {
			c := cutOff(t, tt.mode, tt.long)
			back(c)
			if r := c.replica("web.0.1"); r.State != tt.want {
				t.Errorf("%s, back after %s by %s: %s, want %s", tt.mode, tt.long, way, r.State, tt.want)
			}
		}
	}
}

// A node may have heard the anchors for longer than they heard it.
func TestWhatItsHouseDidNotStopServesOn(t *testing.T) {
	for _, heartbeat := range []bool{true, false} {
		c := cutOff(t, api.DisconnectStop, 40*time.Second)
		if heartbeat {
			c.move("pi", api.NodeCutOff, api.NodeReady)
		}
		c.hear("pi", 1, "", runs("web.0.1", epoch))
		if r := c.replica("web.0.1"); r.State != api.ReplicaReady || r.Reason != "" {
			t.Errorf("%+v", r)
		}
	}
}

// cutOff returns a cluster in which web ran on a node, that is cut off since.
func cutOff(t *testing.T, mode string, since time.Duration) *cluster {
	t.Helper()
	c := newCluster(t)
	c.join("pi")
	spec := webSpec(1)
	spec.OnDisconnect = api.OnDisconnect{Mode: mode, After: api.Duration(30 * time.Second)}
	c.must(PutWorkload{Name: "web", Spec: spec, Now: c.now})
	c.place("pi")
	c.hear("pi", 1, "", runs("web.0.1", epoch))
	c.move("pi", api.NodeReady, api.NodeCutOff)
	c.now = c.now.Add(since)
	return c
}
