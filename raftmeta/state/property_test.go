package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cloudless-project/cloudless/api"
)

// draw makes random commands about a handful of names, so that they meet.
type draw struct {
	*rapid.T
	now time.Time
}

func (d draw) of(label string, choices ...string) string {
	return rapid.SampledFrom(choices).Draw(d.T, label)
}
func (d draw) number(label string, max int) int { return rapid.IntRange(0, max).Draw(d.T, label) }
func (d draw) node() api.NodeID                 { return api.NodeID(d.of("node", "n1", "n2", "n3")) }
func (d draw) workload() string                 { return d.of("workload", "web", "db") }

func (d draw) replica() api.ReplicaID {
	return api.NewReplicaID(d.workload(), d.number("slot", 1), 1+d.number("generation", 4))
}

func (d draw) command() Command {
	switch d.number("command", 14) {
	case 0:
		return PutToken{Token: token(d.of("token", "t1", "t2"), 1), Now: d.now}
	case 1:
		tok := token(d.of("token", "t1", "t2"), 1)
		return redeem(tok, d.node(), d.now)
	case 2:
		return RevokeToken{ID: d.of("token", "t1", "t2"), Now: d.now}
	case 3, 4:
		return EnrolNode{ID: d.node(), Name: d.of("name", "pi", "nas"), Now: d.now}
	case 5, 6, 7:
		return d.report()
	case 8:
		states := []string{"ready", "suspect", "cut_off", "down", "draining"}
		return SetNodeState{ID: d.node(), From: api.NodeState(d.of("from", states...)), To: api.NodeState(d.of("to", states...)), Now: d.now}
	case 9:
		return d.update()
	case 10:
		return PutWorkload{Name: d.workload(), Spec: api.WorkloadSpec{Image: d.of("image", "a", "b"), Replicas: d.number("replicas", 2),
			Ports: make([]api.Port, d.number("ports", 1))}, Now: d.now}
	case 11:
		return d.rare()
	case 12:
		return PutImage{Image: api.Image{Ref: d.of("image", "a", "b"), Digest: d.of("digest", "x", "y"), Holders: []api.NodeID{d.node()}}, Now: d.now}
	}
	return d.plan()
}

func (d draw) report() ReportNode {
	r := api.NodeReport{Node: d.node(), Incarnation: uint64(1 + d.number("incarnation", 1)), Complete: d.number("complete", 3) == 0}
	if d.number("inventory", 2) == 0 {
		r.Inventory = &api.Inventory{Arch: "amd64", Zone: d.of("zone", "home", "cloud")}
	}
	for range d.number("reports", 3) {
		r.Replicas = append(r.Replicas, api.ReplicaReport{ID: d.replica(), Restarts: d.number("restarts", 2), State: api.ReplicaState(
			d.of("state", "Pending", "Assigned", "Preparing", "Starting", "Running", "Ready", "NotReady", "Stopping", "Stopped", "Failed", "Lost", "Unknown"))})
	}
	if d.number("images", 1) == 0 {
		r.Images = []string{d.of("image", "a", "b")}
	}
	return ReportNode{Report: r, Now: d.now}
}

func (d draw) update() Command {
	cordon := d.number("cordon", 1) == 0
	return UpdateNode{ID: d.node(), Cordon: &cordon, SetLabels: map[string]string{d.of("key", "a", "b"): "1"}, UnsetLabels: []string{"b"}, Now: d.now}
}

func (d draw) rare() Command {
	switch d.number("rare", 4) {
	case 0:
		return RemoveNode{ID: d.node(), Now: d.now}
	case 1:
		return RemoveImage{Ref: d.of("image", "a", "b"), Now: d.now}
	case 2:
		return SetVoter{ID: d.node(), Voter: d.number("voter", 1) == 0}
	case 3:
		return ScaleWorkload{Name: d.workload(), Replicas: d.number("replicas", 2), Now: d.now}
	}
	return DeleteWorkload{Name: d.workload(), Now: d.now}
}

func (d draw) plan() CommitPlan {
	p := CommitPlan{Now: d.now}
	for range d.number("places", 2) {
		p.Place = append(p.Place, Placement{Workload: d.workload(), Slot: d.number("slot", 1), Generation: 1, Revision: 1 + d.number("revision", 1), Node: d.node(),
			Standby: d.number("standby", 3) == 0})
	}
	if d.number("promote", 3) == 0 {
		p.Promote = []api.ReplicaID{d.replica()}
	}
	if d.number("drop", 3) == 0 {
		p.Drop = []api.ReplicaID{d.replica()}
	}
	for range d.number("stops", 1) {
		p.Stop = append(p.Stop, StopReplica{ID: d.replica(), Reason: "test"})
	}
	if d.number("forget", 3) == 0 {
		p.Forget = []api.ReplicaID{d.replica()}
	}
	if d.number("note", 3) == 0 {
		p.Unplaced = map[string]string{"web": d.of("why", "full", "small"), "db": "full"}
	}
	return p
}

// Three anchors apply the same entries: one directly, one through the encoding
// of the log, one that is restored from a snapshot on the way. They hold the
// same state, byte for byte, and what must always be true of it is.
func TestAnchorsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		direct, logged, restored := New(), New(), New()
		watch := &watchman{used: map[api.ReplicaID]bool{}, states: map[api.ReplicaID]api.ReplicaState{}}
		now := epoch
		for index := uint64(1); index <= 30; index++ {
			now = now.Add(time.Second)
			var cmds []Command
			for range rapid.IntRange(1, 3).Draw(t, "commands") {
				cmds = append(cmds, draw{t, now}.command())
			}
			res := direct.Apply(index, cmds)
			if api.KindOf(res.Err) == api.KindInternal {
				t.Fatalf("apply %+v: %v", cmds, res.Err)
			}
			data, err := Encode(cmds)
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if other := logged.Apply(index, decoded); fmt.Sprint(other.Err) != fmt.Sprint(res.Err) {
				t.Fatalf("through the log: %v instead of %v", other.Err, res.Err)
			}
			restored.Apply(index, decoded)
			if rapid.IntRange(0, 9).Draw(t, "restore") == 0 {
				restored = reborn(t, restored)
			}
			watch.check(t, direct.View())
		}
		want := text(t, direct)
		if got := text(t, logged); got != want {
			t.Fatalf("through the log:\n%s\nwant:\n%s", got, want)
		}
		if got := text(t, restored); got != want {
			t.Fatalf("restored:\n%s\nwant:\n%s", got, want)
		}
	})
}

func text(t *rapid.T, s *Store) string {
	var b strings.Builder
	if err := s.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func reborn(t *rapid.T, s *Store) *Store {
	other := New()
	if err := other.Restore(strings.NewReader(text(t, s))); err != nil {
		t.Fatal(err)
	}
	return other
}

// watchman checks what must be true of every state and between two of them.
type watchman struct {
	used   map[api.ReplicaID]bool // IDs that were once given out
	states map[api.ReplicaID]api.ReplicaState
	events uint64
}

func (w *watchman) check(t *rapid.T, v View) {
	unique := map[string]bool{}
	once := func(kind, key string) {
		if unique[kind+key] {
			t.Fatalf("%s %s is there twice", kind, key)
		}
		unique[kind+key] = true
	}
	for _, n := range v.Nodes() {
		once("name", n.Inventory.Name)
		once("subnet", n.Subnet)
		if v.Revoked(n.ID) {
			t.Fatalf("node %s is revoked", n.ID)
		}
	}
	for _, s := range v.Services() {
		once("vip", s.VIP)
		if _, ok := v.Workload(s.Name); !ok {
			t.Fatalf("service %s has no workload", s.Name)
		}
	}
	for _, e := range v.EventsAfter(w.events, MaxEvents) {
		w.events++
		if e.ID != w.events {
			t.Fatalf("event %d follows %d", e.ID, w.events-1)
		}
	}
	w.replicas(t, v)
}

func (w *watchman) replicas(t *rapid.T, v View) {
	states := map[api.ReplicaID]api.ReplicaState{}
	ended := map[string]int{}
	for _, r := range v.Replicas() {
		before, known := w.states[r.ID]
		switch {
		case !known && w.used[r.ID]:
			t.Fatalf("the ID %s is used a second time", r.ID)
		case known && before.Terminal() && r.State != before,
			known && r.State != api.ReplicaLost && progress[r.State] < progress[before]:
			t.Fatalf("replica %s went from %s back to %s", r.ID, before, r.State)
		}
		w.used[r.ID] = true
		states[r.ID] = r.State
		if r.State.Terminal() {
			if ended[slotKey(r.Workload, r.Slot)]++; ended[slotKey(r.Workload, r.Slot)] > MaxTerminalPerSlot {
				t.Fatalf("too much history in slot %d of %s", r.Slot, r.Workload)
			}
			continue
		}
		if _, ok := v.Workload(r.Workload); !ok {
			t.Fatalf("replica %s has no workload", r.ID)
		}
		if n, ok := v.Node(r.Node); !ok || n.State == api.NodeDown {
			t.Fatalf("replica %s lives on %s, which is %q", r.ID, r.Node, n.State)
		}
	}
	w.states = states
}
