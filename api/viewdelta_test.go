package api_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/cloudless-project/cloudless/api"
)

// drawView draws a view as an anchor would make it at an index: lists in order,
// the version of a row grows when the row changes.
func drawView(t *rapid.T, index uint64) api.ClusterView {
	v := api.ClusterView{Index: index, Leader: api.NodeID(rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "leader"))}
	version := func(what string) uint64 { return rapid.Uint64Range(1, index).Draw(t, what) }
	for i := range 6 {
		if rapid.Bool().Draw(t, "node") {
			n := api.Node{ID: api.NodeID(fmt.Sprintf("id-%d", 9-i)), Version: version("node version")}
			n.Inventory.Name = fmt.Sprintf("node-%d%d", i, rapid.IntRange(0, 1).Draw(t, "renamed"))
			if n.Inventory.Name[6] == '1' {
				n.Version += index // a new name is a change
			}
			n.StateReason = fmt.Sprint(n.Version)
			v.Nodes = append(v.Nodes, n)
		}
		for slot := range 2 {
			if rapid.Bool().Draw(t, "replica") {
				w := fmt.Sprintf("w%d", i)
				r := api.Replica{ID: api.NewReplicaID(w, slot, 1), Workload: w, Slot: slot, Generation: 1, Version: version("replica version")}
				r.Reason = fmt.Sprint(r.Version)
				v.Replicas = append(v.Replicas, r)
			}
		}
		if rapid.Bool().Draw(t, "service") {
			s := api.Service{Name: fmt.Sprintf("w%d", i), Version: version("service version")}
			s.VIP = fmt.Sprint(s.Version)
			v.Services = append(v.Services, s)
		}
		if rapid.Bool().Draw(t, "image") {
			v.Images = append(v.Images, api.Image{Ref: fmt.Sprintf("image-%d", i), Digest: fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "digest"))})
		}
		if rapid.Bool().Draw(t, "revocation") {
			v.Revocations = append(v.Revocations, api.Revocation{ID: fmt.Sprintf("id-%d", i)})
		}
	}
	return v
}

func text(t *rapid.T, v api.ClusterView) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDeltaTurnsOneViewIntoTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, next := drawView(t, 10), drawView(t, 20)
		before := text(t, old)
		d := old.DeltaTo(next)
		got, err := old.Apply(d)
		if err != nil {
			t.Fatal(err)
		}
		if g, w := text(t, normal(got)), text(t, normal(next)); g != w {
			t.Fatalf("got\n%s\nwant\n%s", g, w)
		}
		if text(t, old) != before {
			t.Fatal("Apply changed the view that it was given")
		}
		same := got.DeltaTo(got)
		if !same.Empty(&got) {
			t.Fatalf("a view differs from itself: %+v", same)
		}
		if _, err := next.Apply(d); api.KindOf(err) != api.KindConflict {
			t.Fatalf("a delta for another view was applied: %v", err)
		}
	})
}

// normal makes no difference between no rows and no list.
func normal(v api.ClusterView) api.ClusterView {
	v.Nodes = append([]api.Node{}, v.Nodes...)
	v.Replicas = append([]api.Replica{}, v.Replicas...)
	v.Services = append([]api.Service{}, v.Services...)
	v.Images = append([]api.Image{}, v.Images...)
	v.Revocations = append([]api.Revocation{}, v.Revocations...)
	return v
}

func BenchmarkDelta1000Nodes(b *testing.B) {
	v := api.ClusterView{Index: 1}
	for i := range 1000 {
		n := api.Node{ID: api.NodeID(fmt.Sprintf("12D3KooW%044d", i)), Version: uint64(i)}
		n.Inventory.Name = fmt.Sprintf("device-%04d", i)
		v.Nodes = append(v.Nodes, n)
	}
	next := v
	next.Index = 2
	next.Nodes = append([]api.Node{}, v.Nodes...)
	next.Nodes[500].Version = 5000
	for b.Loop() {
		if d := v.DeltaTo(next); len(d.Changed.Nodes) != 1 {
			b.Fatal(len(d.Changed.Nodes))
		}
	}
}
