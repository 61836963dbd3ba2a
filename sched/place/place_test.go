package place

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cloudless-project/cloudless/api"
)

func node(id string, change ...func(*api.Node)) api.Node {
	n := api.Node{ID: api.NodeID(id), State: api.NodeReady, Inventory: api.Inventory{Name: id, Worker: true, Arch: "amd64",
		Capacity: api.Resources{CPU: 4000, Memory: 8 << 30, Storage: 100 << 30, Bandwidth: 1e9}}}
	for _, c := range change {
		c(&n)
	}
	return n
}

func zone(z string) func(*api.Node) { return func(n *api.Node) { n.Inventory.Zone = z } }
func label(k, v string) func(*api.Node) {
	return func(n *api.Node) { n.Labels = map[string]string{k: v} }
}
func taint(key, effect string) func(*api.Node) {
	return func(n *api.Node) { n.Inventory.Taints = []api.Taint{{Key: key, Effect: effect}} }
}

func spec(change ...func(*api.WorkloadSpec)) *api.WorkloadSpec {
	s := &api.WorkloadSpec{Image: "web:1", Replicas: 1}
	for _, c := range change {
		c(s)
	}
	s.SetDefaults()
	return s
}

func on(id string, s *api.WorkloadSpec, workload string, slot int) api.Replica {
	return api.Replica{ID: api.NewReplicaID(workload, slot, 1), Workload: workload, Slot: slot, Spec: *s, Node: api.NodeID(id), State: api.ReplicaReady, Desired: api.DesiredRun}
}

// TestFilters checks each reason for which a node is out, in the words that a
// person reads.
func TestFilters(t *testing.T) {
	needsMuch := spec(func(s *api.WorkloadSpec) { s.Resources.Memory = 512 << 20 })
	apart := spec(func(s *api.WorkloadSpec) {
		s.Placement.AntiAffinity = []api.AntiAffinity{{Workload: "db", Topology: "zone", Required: true}}
	})
	for _, c := range []struct {
		name     string
		node     api.Node
		spec     *api.WorkloadSpec
		replicas []api.Replica
		want     string // what Explain says; "" = it fits
	}{
		{"fits", node("a"), spec(), nil, ""},
		{"no worker", node("a", func(n *api.Node) { n.Inventory.Worker = false }), spec(), nil, "runs no workloads"},
		{"down", node("a", func(n *api.Node) { n.State = api.NodeDown }), spec(), nil, "is down"},
		{"cordoned", node("a", func(n *api.Node) { n.Cordoned = true }), spec(), nil, "is cordoned"},
		{"memory", node("a", func(n *api.Node) { n.Inventory.Capacity.Memory = 210 << 20 }), needsMuch, nil,
			"needs 512 MiB of memory, has 210 MiB free"},
		{"cpu and storage", node("a", func(n *api.Node) { n.Inventory.Capacity = api.Resources{CPU: 50, Memory: 1 << 30} }),
			spec(func(s *api.WorkloadSpec) { s.Resources.Storage = 1 << 30 }), nil,
			"needs 100m of cpu, has 50m free; needs 1 GiB of storage, has 0 bytes free"},
		{"taken", node("a"), spec(func(s *api.WorkloadSpec) { s.Resources.CPU = 3000 }),
			[]api.Replica{on("a", spec(func(s *api.WorkloadSpec) { s.Resources.CPU = 2000 }), "other", 0)},
			"needs 3 of cpu, has 2 free"},
		{"architecture", node("a", func(n *api.Node) { n.Inventory.Arch = "riscv64" }), spec(func(s *api.WorkloadSpec) { s.Image = "known" }), nil,
			"wants an image for amd64 or arm64, the node has riscv64"},
		{"label", node("a", label("disk", "hdd")), spec(require("disk", api.OpIn, "ssd")), nil, "wants disk In ssd, the node has hdd"},
		{"no label", node("a"), spec(require("disk", api.OpExists)), nil, "wants disk Exists, the node has no such label"},
		{"not in", node("a"), spec(require("disk", api.OpNotIn, "hdd")), nil, ""},
		{"does not exist", node("a", label("disk", "hdd")), spec(require("disk", api.OpDoesNotExist)), nil, "wants disk DoesNotExist, the node has hdd"},
		{"taint", node("a", taint("gpu", api.EffectNoSchedule)), spec(), nil, "has the taint gpu:NoSchedule, which is not tolerated"},
		{"tolerated", node("a", taint("gpu", api.EffectNoSchedule)), spec(func(s *api.WorkloadSpec) {
			s.Placement.Tolerations = []api.Toleration{{Key: "gpu"}}
		}), nil, ""},
		{"soft taint", node("a", taint("gpu", api.EffectPreferNoSchedule)), spec(), nil, ""},
		{"anti-affinity", node("a", zone("home")), apart, []api.Replica{on("a", spec(), "db", 0)}, "is in zone home, which has 1 of db already"},
		{"no zone is nobody's zone", node("a"), apart, []api.Replica{on("a", spec(), "db", 0)}, ""},
		{"the other side keeps away", node("a", zone("home")), spec(), []api.Replica{on("a", spec(func(s *api.WorkloadSpec) {
			s.Placement.AntiAffinity = []api.AntiAffinity{{Workload: "web", Topology: "node", Required: true}}
		}), "db", 0)}, "has 1 of db already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			images := []api.Image{{Ref: "docker.io/library/known:latest", Platforms: []string{"linux/amd64", "linux/arm64/v8"}}}
			f := New([]api.Node{c.node}, c.replicas, Options{Images: images})
			req := Request{Workload: "web", Spec: c.spec}
			v := f.Explain(req)[0]
			if got := strings.Join(v.Faults, "; "); got != c.want || v.Fits != (c.want == "") {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if _, err := f.Place(req); (err == nil) != v.Fits {
				t.Errorf("Place says %v, Explain %+v", err, v)
			}
		})
	}
}

func require(key, op string, values ...string) func(*api.WorkloadSpec) {
	return func(s *api.WorkloadSpec) {
		s.Placement.Affinity = append(s.Placement.Affinity, api.Affinity{Key: key, Operator: op, Values: values, Required: true})
	}
}

func TestSummary(t *testing.T) {
	small := func(n *api.Node) { n.Inventory.Capacity.Memory = 1 << 20 }
	nodes := []api.Node{node("a", small), node("b", small), node("c", func(n *api.Node) { n.Cordoned = true }), node("d", taint("gpu", api.EffectNoSchedule))}
	_, err := New(nodes, nil, Options{}).Place(Request{Workload: "web", Spec: spec()})
	const want = "0 of 4 nodes: 2 lack memory, 1 has taint gpu, 1 is cordoned"
	if api.KindOf(err) != api.KindUnplaced || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := New(nil, nil, Options{}).Place(Request{Spec: spec()}); err == nil || err.Error() != "there are no nodes" {
		t.Errorf("got %v", err)
	}
}

// TestPreferences checks what makes a node better than another.
func TestPreferences(t *testing.T) {
	images := []api.Image{{Ref: "docker.io/library/web:1", Holders: []api.NodeID{"b"}}}
	wish := func(s *api.WorkloadSpec) {
		s.Placement.Affinity = []api.Affinity{{Key: "zone", Operator: api.OpIn, Values: []string{"home"}, Weight: 80}}
	}
	three := func(s *api.WorkloadSpec) { s.Replicas = 3 }
	one := 1
	spare := func(s *api.WorkloadSpec) { s.Replicas, s.Update.MinAvailable = 3, &one }
	spread := func(s *api.WorkloadSpec) {
		s.Replicas, s.Placement.Strategy, s.Placement.SpreadBy = 3, api.StrategySpread, "zone"
	}
	busy := on("b", spec(func(s *api.WorkloadSpec) { s.Resources.CPU, s.Resources.Memory = 2000, 4<<30 }), "other", 0)
	for _, c := range []struct {
		name     string
		nodes    []api.Node
		replicas []api.Replica
		opts     Options
		spec     *api.WorkloadSpec
		want     api.NodeID
	}{
		{"ties go to the first ID", []api.Node{node("b"), node("a")}, nil, Options{}, spec(), "a"},
		{"image present", []api.Node{node("a"), node("b")}, nil, Options{Images: images}, spec(), "b"},
		{"preferred zone", []api.Node{node("a"), node("b", zone("home"))}, nil, Options{}, spec(wish), "b"},
		{"binpack fills", []api.Node{node("a"), node("b")}, []api.Replica{busy}, Options{}, spec(), "b"},
		{"spread empties", []api.Node{node("b"), node("c")}, []api.Replica{busy}, Options{}, spec(func(s *api.WorkloadSpec) { s.Placement.Strategy = api.StrategySpread }), "c"},
		{"reliability", []api.Node{node("a"), node("b")}, nil, Options{Facts: map[api.NodeID]Facts{"a": {Reliability: 0.3}, "b": {Reliability: 0.9}}}, spec(), "b"},
		{"cost", []api.Node{node("a", label("power", "battery")), node("b", label("power", "mains"))}, nil, Options{}, spec(), "b"},
		{"relayed is worse", []api.Node{node("a"), node("b")}, nil, Options{Facts: map[api.NodeID]Facts{"a": {Path: api.PathRelayed}, "b": {Path: api.PathDirect}}}, spec(), "b"},
		{"slow is worse", []api.Node{node("a"), node("b")}, nil, Options{Facts: map[api.NodeID]Facts{"a": {Path: api.PathDirect, RTT: time.Second}, "b": {Path: api.PathDirect, RTT: time.Millisecond}}}, spec(), "b"},
		{"soft taint", []api.Node{node("a", taint("x", api.EffectPreferNoSchedule)), node("b")}, nil, Options{}, spec(), "b"},
		{"its own replicas apart, even from the image", []api.Node{node("a"), node("b")}, []api.Replica{on("b", spec(three), "web", 0)}, Options{Images: images}, spec(three), "a"},
		{"as many together as may be spared", []api.Node{node("a"), node("b")}, []api.Replica{on("b", spec(spare), "web", 0)}, Options{}, spec(spare), "b"},
		{"zones first", []api.Node{node("a", zone("x")), node("b", zone("x")), node("c", zone("y"))}, []api.Replica{on("a", spec(spread), "web", 0)}, Options{Images: images}, spec(spread), "c"},
		{"within a zone the other node", []api.Node{node("a", zone("x")), node("b", zone("x"))}, []api.Replica{on("a", spec(spread), "web", 0)}, Options{}, spec(spread), "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := New(c.nodes, c.replicas, c.opts).Place(Request{Workload: "web", Spec: c.spec})
			if err != nil || d.Node != c.want {
				t.Errorf("got %s (%v), want %s", d.Node, err, c.want)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	nodes := []api.Node{node("a"), node("b")}
	facts := map[api.NodeID]Facts{"a": {Reliability: 1, Path: api.PathRelayed}, "b": {Reliability: 0.1, Path: api.PathLAN}}
	for want, w := range map[api.NodeID]Weights{"a": {Reliability: 1}, "b": {Network: 1}} {
		d, err := New(nodes, nil, Options{Facts: facts, Weights: w}).Place(Request{Spec: spec()})
		if err != nil || d.Node != want {
			t.Errorf("weights %+v: got %s, want %s", w, d.Node, want)
		}
	}
}

func TestReplacesIsNoNeighbour(t *testing.T) {
	s := spec(func(s *api.WorkloadSpec) {
		s.Placement.AntiAffinity = []api.AntiAffinity{{Topology: "node", Required: true}}
	})
	f := New([]api.Node{node("a")}, []api.Replica{on("a", s, "web", 0)}, Options{})
	if _, err := f.Place(Request{ID: "web.0.2", Workload: "web", Spec: s}); err == nil {
		t.Fatal("placed beside its like")
	}
	if _, err := f.Place(Request{ID: "web.0.2", Workload: "web", Spec: s, Replaces: []api.ReplicaID{"web.0.1"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Place(Request{ID: "web.1.1", Workload: "web", Spec: s, Replaces: []api.ReplicaID{"web.0.1"}}); err == nil {
		t.Error("the replica that replaces it does not count")
	}
}

// Whoever keeps others away does so for as long as one of its replicas demands it.
func TestReleaseEndsTheDemandToStayAway(t *testing.T) {
	shy := spec(func(s *api.WorkloadSpec) {
		s.Placement.AntiAffinity = []api.AntiAffinity{{Workload: "web", Topology: "node", Required: true}}
	})
	f := New([]api.Node{node("a")}, []api.Replica{on("a", shy, "db", 0), on("a", shy, "db", 1), on("a", spec(), "db", 2)}, Options{})
	for released, want := range []bool{false, false, true} {
		if released > 0 {
			f.Release(api.NewReplicaID("db", released-1, 1))
		}
		if got := f.Explain(Request{ID: "web.0.1", Workload: "web", Spec: spec()})[0].Fits; got != want {
			t.Errorf("after %d were released: %v, want %v", released, got, want)
		}
	}
}

// TestExplainAgreesWithPlace demands of random fleets that Place takes the
// first verdict of Explain, and that Release undoes Reserve.
func TestExplainAgreesWithPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []api.Node
		for i := range rapid.IntRange(1, 12).Draw(t, "nodes") {
			n := node(fmt.Sprintf("n%02d", i), zone(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "zone")))
			n.Inventory.Capacity.CPU = api.CPU(rapid.IntRange(1, 8).Draw(t, "cpu")) * 500
			n.Cordoned = rapid.IntRange(0, 5).Draw(t, "cordoned") == 0
			nodes = append(nodes, n)
		}
		f := New(nodes, nil, Options{})
		for i := range rapid.IntRange(1, 20).Draw(t, "requests") {
			w := rapid.SampledFrom([]string{"web", "db"}).Draw(t, "workload")
			s := spec(func(s *api.WorkloadSpec) {
				s.Replicas = rapid.IntRange(1, 4).Draw(t, "replicas")
				s.Resources.CPU = api.CPU(rapid.IntRange(1, 8).Draw(t, "cpu")) * 250
				s.Placement.AntiAffinity = []api.AntiAffinity{{Workload: rapid.SampledFrom([]string{"", "web", "db"}).Draw(t, "from"), Topology: rapid.SampledFrom([]string{"node", "zone"}).Draw(t, "topology"), Required: rapid.Bool().Draw(t, "required")}}
				s.Placement.Strategy = rapid.SampledFrom([]string{"binpack", "spread"}).Draw(t, "strategy")
			})
			req := Request{ID: api.NewReplicaID(w, i, 1), Workload: w, Spec: s}
			other := Request{Workload: map[string]string{"web": "db", "db": "web"}[w], Spec: spec()}
			verdicts, before := f.Explain(req), f.Explain(other)
			for _, v := range verdicts {
				for _, term := range []float64{v.Terms.Locality, v.Terms.Reliability, v.Terms.Cost, v.Terms.Utilisation, v.Terms.Network} {
					if term < 0 || term > 1 {
						t.Fatalf("a term is out of range: %+v", v)
					}
				}
			}
			d, err := f.Place(req)
			if best := verdicts[0]; best.Fits != (err == nil) || best.Fits && (best.Node != d.Node || best.Score != d.Score) {
				t.Fatalf("Place: %v %v, Explain: %+v", d, err, best)
			}
			if err == nil && rapid.Bool().Draw(t, "release") {
				f.Release(req.ID)
				if again := f.Explain(req); !reflect.DeepEqual(again, verdicts) {
					t.Fatalf("Release did not undo: %+v, before %+v", again, verdicts)
				}
				if again := f.Explain(other); !reflect.DeepEqual(again, before) {
					t.Fatalf("Release did not undo for others: %+v, before %+v", again, before)
				}
			}
		}
	})
}
