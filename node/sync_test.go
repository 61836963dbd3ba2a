package node

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func reportFrom(addresses ...string) api.NodeReport {
	return api.NodeReport{Node: "n1", Complete: true, Inventory: &api.Inventory{Name: "n1", Addresses: addresses}}
}

func TestReportsAreSentOnceAndFlappingOnesSeldom(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var o outgoing
	if !o.due(reportFrom("a"), now) || o.due(reportFrom("a"), now) {
		t.Fatal("want the first report sent, and only once")
	}
	if !o.due(reportFrom("a", "b"), now.Add(time.Second)) {
		t.Error("the first new address waits")
	}
	sent := 0
	for i := range 3600 / 2 { // an address that comes and goes for an hour
		now = now.Add(pollInventory)
		r := reportFrom("a")
		if i%2 == 0 {
			r = reportFrom("a", "b")
		}
		if o.due(r, now) {
			sent++
		}
	}
	if sent > 75 {
		t.Errorf("%d reports of a flapping address within an hour", sent)
	}
	now = now.Add(time.Second)
	busy := reportFrom("a", "c")
	busy.Replicas = []api.ReplicaReport{{ID: "web.0.1", State: api.ReplicaReady}}
	if !o.due(busy, now) {
		t.Error("a replica that became ready waits for a flapping address")
	}
	calm := now.Add(time.Hour)
	busy.Inventory.Addresses = []string{"d"}
	if !o.due(busy, calm) {
		t.Error("a new address waits after an hour of calm")
	}
	busy.Inventory.Addresses = []string{"e"}
	if !o.due(busy, calm.Add(3*time.Second)) {
		t.Error("the pace was not reset by an hour of calm")
	}
}
