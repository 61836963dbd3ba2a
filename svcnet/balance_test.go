package svcnet

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// testBalancer has a clock that stands still and nodes that are all alike.
func testBalancer(paths map[api.NodeID]api.Path) (*balancer, *time.Time) {
	b := newBalancer("self", func(id api.NodeID) (api.Path, time.Duration) {
		if p, ok := paths[id]; ok {
			return p, 10 * time.Millisecond
		}
		return api.PathDirect, 10 * time.Millisecond
	})
	now := time.Unix(1000, 0)
	b.now = func() time.Time { return now }
	b.rand = rand.New(rand.NewPCG(1, 2)).IntN
	return b, &now
}

func ready(replica api.ReplicaID, node api.NodeID, weight int) api.Endpoint {
	return api.Endpoint{Replica: replica, Node: node, Ready: true, Weight: weight}
}

func TestPickPrefersTheNearestPath(t *testing.T) {
	b, _ := testBalancer(map[api.NodeID]api.Path{
		"lan": api.PathLAN, "direct": api.PathDirect, "relayed": api.PathRelayed, "none": api.PathNone,
	})
	order := []api.NodeID{"self", "lan", "direct", "relayed", "none"}
	var endpoints []api.Endpoint
	for _, n := range order {
		endpoints = append([]api.Endpoint{ready(api.ReplicaID("web."+n), n, 1)}, endpoints...)
	}
	tried := make(map[api.ReplicaID]bool)
	for _, want := range order {
		got, ok := b.pick(endpoints, tried)
		if !ok || got.Node != want {
			t.Fatalf("after %v: picked %s, want %s", tried, got.Node, want)
		}
		tried[got.Replica] = true
	}
	if got, ok := b.pick(endpoints, tried); ok {
		t.Errorf("picked %s although every endpoint was tried", got.Replica)
	}
}

func TestPickLeavesOutWhatIsNotReady(t *testing.T) {
	b, _ := testBalancer(nil)
	if got, ok := b.pick([]api.Endpoint{{Replica: "web.0.1", Node: "self"}}, nil); ok {
		t.Errorf("picked %s", got.Replica)
	}
}

func TestPickIgnoresSmallDifferencesOfRTT(t *testing.T) {
	rtt := map[api.NodeID]time.Duration{"a": 10 * time.Millisecond, "b": 15 * time.Millisecond, "far": 80 * time.Millisecond}
	b, _ := testBalancer(nil)
	b.paths = func(id api.NodeID) (api.Path, time.Duration) { return api.PathDirect, rtt[id] }
	got := distribution(t, b, []api.Endpoint{ready("web.0.1", "far", 1), ready("web.1.1", "b", 1), ready("web.2.1", "a", 1)}, 1000)
	if got["web.0.1"] != 0 || got["web.1.1"] < 400 || got["web.2.1"] < 400 {
		t.Errorf("1000 connections went %v", got)
	}
}

// distribution opens and closes connections one after the other.
func distribution(t *testing.T, b *balancer, endpoints []api.Endpoint, n int) map[api.ReplicaID]int {
	t.Helper()
	count := make(map[api.ReplicaID]int)
	for range n {
		c, ok := b.pick(endpoints, nil)
		if !ok {
			t.Fatal("nothing to pick")
		}
		count[c.Replica]++
		b.opened(c.Replica, c.Node)()
	}
	return count
}

func TestWeightsShareShortConnections(t *testing.T) {
	b, _ := testBalancer(nil)
	got := distribution(t, b, []api.Endpoint{ready("web.0.1", "a", 1), ready("web.1.1", "b", 3)}, 4000)
	if got["web.1.1"] < 2800 || got["web.1.1"] > 3200 {
		t.Errorf("weights 1 and 3 shared 4000 connections %v", got)
	}
}

func TestOpenConnectionsSpread(t *testing.T) {
	b, _ := testBalancer(nil)
	var endpoints []api.Endpoint
	for i := range 5 {
		endpoints = append(endpoints, ready(api.NewReplicaID("web", i, 1), api.NodeID(fmt.Sprint(i)), 1))
	}
	for range 500 {
		c, _ := b.pick(endpoints, nil)
		b.opened(c.Replica, c.Node)
	}
	for id, h := range b.ends {
		if h.active < 90 || h.active > 110 {
			t.Errorf("%s has %d of 500 connections over 5 endpoints", id, h.active)
		}
	}
}

func TestFailedEndpointIsAvoidedForAWhile(t *testing.T) {
	b, now := testBalancer(nil)
	endpoints := []api.Endpoint{ready("web.0.1", "self", 1), ready("web.1.1", "b", 1)}
	pick := func(want api.ReplicaID) {
		t.Helper()
		if got, _ := b.pick(endpoints, nil); got.Replica != want {
			t.Errorf("picked %s, want %s", got.Replica, want)
		}
	}
	pick("web.0.1")
	b.failed("web.0.1", "self")
	pick("web.1.1")
	*now = now.Add(firstEjection)
	pick("web.0.1")

	for range 100 { // however often it fails, the time is bounded
		b.failed("web.0.1", "self")
	}
	*now = now.Add(maxEjection - time.Millisecond)
	pick("web.1.1")
	*now = now.Add(time.Millisecond)
	pick("web.0.1")

	b.failed("web.0.1", "self")
	b.failed("", "b") // with nothing better left, the nearest is tried in spite of it
	pick("web.0.1")
	b.opened("web.0.1", "self")() // and forgiven when it works
	*now = now.Add(time.Millisecond)
	pick("web.0.1")
}

func TestBalanceForgetsWhatLeftTheTable(t *testing.T) {
	b, now := testBalancer(nil)
	table := func(endpoints ...api.Endpoint) *snapshot {
		return newSnapshot(Table{Services: []api.ServiceStatus{{
			Service: api.Service{Name: "web", VIP: "10.213.1.0"}, Endpoints: endpoints,
		}}}, DefaultVIPRange)
	}
	both := table(ready("web.0.1", "a", 1), ready("web.1.1", "b", 1))
	closed := b.opened("web.0.1", "a")
	b.failed("web.1.1", "b")
	b.failed("", "b")
	b.keep(both, both)
	if len(b.ends) != 2 {
		t.Errorf("an unchanged table left %d entries, want 2", len(b.ends))
	}
	*now = now.Add(time.Hour)
	b.keep(both, table())
	if len(b.ends) != 1 || len(b.nodes) != 0 {
		t.Errorf("left %d endpoints, %d nodes; want the one with a connection", len(b.ends), len(b.nodes))
	}
	closed()
	closed() // counted once
	if len(b.ends) != 0 {
		t.Errorf("%d endpoints after the last connection", len(b.ends))
	}
}
