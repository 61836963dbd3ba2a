package place

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// bigFleet is 5,000 nodes in 500 zones, half full, with paths and images.
func bigFleet() *Fleet {
	const size = 5000
	r := rand.New(rand.NewPCG(1, 2))
	nodes := make([]api.Node, size)
	facts := map[api.NodeID]Facts{}
	var holders []api.NodeID
	var replicas []api.Replica
	for i := range nodes {
		nodes[i] = node(fmt.Sprintf("n%04d", i), zone(fmt.Sprintf("z%d", i%500)), label("disk", []string{"ssd", "hdd"}[i%2]))
		if i%10 == 0 {
			nodes[i].Inventory.Taints = []api.Taint{{Key: "gpu", Effect: api.EffectNoSchedule}}
		}
		facts[nodes[i].ID] = Facts{Reliability: r.Float64(), Path: api.PathDirect, RTT: time.Duration(r.IntN(100)) * time.Millisecond}
		if i%3 == 0 {
			holders = append(holders, nodes[i].ID)
		}
		s := spec(func(s *api.WorkloadSpec) {
			s.Resources.CPU, s.Resources.Memory = api.CPU(r.IntN(3000)+1), api.Bytes(r.IntN(6<<30)+1)
		})
		replicas = append(replicas, on(string(nodes[i].ID), s, fmt.Sprintf("w%d", i%100), i))
	}
	images := []api.Image{{Ref: "docker.io/library/web:1", Holders: holders, Platforms: []string{"linux/amd64"}}}
	return New(nodes, replicas, Options{Facts: facts, Images: images})
}

// BenchmarkDecision prints the cost of one decision over 5,000 nodes (NFR-P1):
// every node is filtered and scored with all five terms.
func BenchmarkDecision(b *testing.B) {
	requests := map[string]*api.WorkloadSpec{
		"plain": spec(),
		"spread": spec(func(s *api.WorkloadSpec) {
			s.Replicas, s.Placement.Strategy, s.Placement.SpreadBy = 10, "spread", "zone"
		}),
		"constrained": spec(require("disk", api.OpIn, "ssd"), func(s *api.WorkloadSpec) {
			s.Replicas = 10
			s.Placement.Affinity = append(s.Placement.Affinity, api.Affinity{Key: "zone", Operator: api.OpIn, Values: []string{"z1", "z2", "z3"}, Weight: 50})
			s.Placement.AntiAffinity = []api.AntiAffinity{{Topology: "node", Required: true}, {Workload: "w7", Topology: "zone"}}
		}),
	}
	for _, name := range []string{"plain", "spread", "constrained"} {
		b.Run(name, func(b *testing.B) {
			f, s := bigFleet(), requests[name]
			took := make([]time.Duration, 0, b.N)
			for i := 0; b.Loop(); i++ {
				id := api.NewReplicaID("web", i, 1)
				start := time.Now()
				if _, err := f.Place(Request{ID: id, Workload: "web", Spec: s}); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				f.Release(id)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "P50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "P99-µs")
		})
	}
}
