package reconcile

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cloudless-project/cloudless/api"
)

// TestPlans drives a world through joys and mishaps and checks every plan:
// capacity, constraints, slots, budget, and that the order of the input does
// not matter. In the end everything heals, and the world must come to rest with
// every replica ready or a reason why not.
func TestPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		for range rapid.IntRange(5, 40).Draw(t, "events") {
			event(t, w)
			w.plan(t)
		}
		w.heal(t)
	})
}

func drawWorld(t *rapid.T) *world {
	w := newWorld()
	for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
		n := w.addNode(fmt.Sprintf("n%d", i), api.CPU(rapid.IntRange(2, 8).Draw(t, "cpu"))*500, api.Bytes(rapid.IntRange(2, 8).Draw(t, "memory"))<<28)
		n.Inventory.Zone = rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "zone")
		if rapid.IntRange(0, 4).Draw(t, "tainted") == 0 {
			n.Inventory.Taints = []api.Taint{{Key: "gpu", Effect: api.EffectNoSchedule}}
		}
	}
	return w
}

func drawSpec(t *rapid.T) api.WorkloadSpec {
	s := api.WorkloadSpec{Image: fmt.Sprintf("web:%d", rapid.IntRange(1, 3).Draw(t, "tag")), Replicas: rapid.IntRange(0, 5).Draw(t, "replicas")}
	s.Resources.CPU = api.CPU(rapid.IntRange(1, 6).Draw(t, "cpu")) * 250
	s.Resources.Memory = api.Bytes(rapid.IntRange(1, 6).Draw(t, "memory")) << 27
	s.OnDisconnect.Mode = rapid.SampledFrom([]string{"", api.DisconnectKeep, api.DisconnectStop}).Draw(t, "offline")
	s.Update.Order = rapid.SampledFrom([]string{"", api.OrderStopFirst}).Draw(t, "order")
	s.Update.MaxSurge = rapid.IntRange(0, 3).Draw(t, "surge")
	s.Update.MinHealthy = api.Duration(rapid.IntRange(0, 2).Draw(t, "minHealthy")) * api.Duration(time.Second)
	s.Restart.Policy = rapid.SampledFrom([]string{"", api.RestartOnFailure, api.RestartNever}).Draw(t, "policy")
	if rapid.Bool().Draw(t, "minAvailable set") {
		n := rapid.IntRange(0, s.Replicas).Draw(t, "minAvailable")
		s.Update.MinAvailable = &n
	}
	if rapid.IntRange(0, 2).Draw(t, "affine") == 0 {
		s.Placement.Affinity = []api.Affinity{{Key: "zone", Operator: api.OpIn, Values: []string{"a", "b"}, Required: rapid.Bool().Draw(t, "required")}}
	}
	if rapid.IntRange(0, 2).Draw(t, "apart") == 0 {
		s.Placement.AntiAffinity = []api.AntiAffinity{{Workload: rapid.SampledFrom([]string{"", "w0", "w1"}).Draw(t, "from"),
			Topology: rapid.SampledFrom([]string{"node", "zone"}).Draw(t, "topology"), Required: rapid.Bool().Draw(t, "required")}}
	}
	if rapid.Bool().Draw(t, "tolerant") {
		s.Placement.Tolerations = []api.Toleration{{Key: "gpu"}}
	}
	if rapid.Bool().Draw(t, "spread") {
		s.Placement.Strategy, s.Placement.SpreadBy = api.StrategySpread, "zone"
	}
	return s
}

func event(t *rapid.T, w *world) {
	name := rapid.SampledFrom([]string{"w0", "w1", "w2"}).Draw(t, "workload")
	node := string(rapid.SampledFrom(w.nodes).Draw(t, "node").ID)
	switch rapid.IntRange(0, 9).Draw(t, "event") {
	case 0, 1:
		w.put(name, drawSpec(t))
	case 2:
		if wl := w.workload(name); wl != nil {
			wl.Spec.Replicas = rapid.IntRange(0, 5).Draw(t, "replicas")
		}
	case 3:
		if wl := w.workload(name); wl != nil && rapid.Bool().Draw(t, "delete") {
			wl.Deleted = true
		}
	case 4:
		w.setNode(node, rapid.SampledFrom([]api.NodeState{api.NodeReady, api.NodeSuspect, api.NodeDown, api.NodeDraining, api.NodeCutOff}).Draw(t, "state"))
	case 5:
		w.node(node).Cordoned = rapid.Bool().Draw(t, "cordoned")
	case 6:
		if len(w.replicas) == 0 {
			return
		}
		r := &w.replicas[rapid.IntRange(0, len(w.replicas)-1).Draw(t, "replica")]
		if !r.State.Terminal() {
			w.move(r, rapid.SampledFrom([]api.ReplicaState{api.ReplicaFailed, api.ReplicaNotReady, api.ReplicaStopped}).Draw(t, "state"))
		}
	default:
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
		for i := range w.replicas {
			if rapid.Bool().Draw(t, "advances") {
				w.advance(&w.replicas[i])
			}
		}
	}
	w.trim()
}

// plan makes a plan, checks it and carries it out. It reports whether there
// was anything to do.
func (w *world) plan(t *rapid.T) bool {
	p := Make(w.input())
	if wrong := w.check(p); wrong != "" {
		t.Fatalf("the plan %s\n%+v", wrong, p)
	}
	in := w.input()
	shuffle(in.Nodes)
	shuffle(in.Workloads)
	shuffle(in.Replicas)
	if again := Make(in); !reflect.DeepEqual(p, again) {
		t.Fatalf("another order of the input, another plan:\n%+v\n%+v", p, again)
	}
	w.commit(p)
	if p = Make(w.input()); len(p.Place)+len(p.Promote)+len(p.Drop)+len(p.Stop)+len(p.Forget) > 0 && p.Wake.IsZero() {
		// A stop may give room in the budget only when it has ended, so what is left
		// must be nothing at all.
		t.Fatalf("the plan was carried out, yet there is more to do:\n%+v", p)
	}
	return !p.Empty()
}

func shuffle[T any](s []T) {
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

// heal brings all nodes back and lets every replica succeed, until nothing
// moves any more.
func (w *world) heal(t *rapid.T) {
	for i := range w.nodes {
		w.setNode(string(w.nodes[i].ID), api.NodeReady)
	}
	for range 200 {
		w.now = w.now.Add(2 * time.Minute)
		w.plan(t)
		moved := false
		for i := range w.replicas {
			moved = w.advance(&w.replicas[i]) || moved
		}
		w.trim()
		if p := Make(w.input()); !moved && p.Empty() {
			w.atRest(t)
			return
		}
	}
	t.Fatalf("the world does not come to rest: %+v", Make(w.input()))
}

// atRest checks that every wish is fulfilled, or that there is a reason.
func (w *world) atRest(t *rapid.T) {
	for _, wl := range w.workloads {
		ready := 0
		for _, r := range w.replicas {
			if r.Workload == wl.Name && r.State == api.ReplicaReady && r.Revision == wl.Revision && r.Slot < wl.Spec.Replicas {
				ready++
			}
		}
		completed := wl.Spec.Restart.Policy != api.RestartAlways // then ended replicas may stay so
		if ready != wl.Spec.Replicas && w.unplaced[wl.Name] == "" && !completed {
			t.Fatalf("workload %s rests with %d of %d ready and no reason:\n%+v", wl.Name, ready, wl.Spec.Replicas, slices.Clone(w.replicas))
		}
	}
}
