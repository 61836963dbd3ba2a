package node

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// A member gone mad reports anything. It is refused, or recorded as something
// about this one node that every other node can be told.
func FuzzReport(f *testing.F) {
	report := func(r api.NodeReport) {
		data, err := proto.Marshal(wire.NodeReportToPB(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	report(api.NodeReport{Node: "mad", Incarnation: 1, Complete: true, Inventory: &api.Inventory{
		Name: "mad", Arch: "amd64", Addresses: []string{"/ip4/192.0.2.1/tcp/4717"}, Labels: map[string]string{"gpu": "true"}, Worker: true,
	}})
	report(api.NodeReport{Node: "mad", Replicas: []api.ReplicaReport{{ID: "web.0.1", State: "running"}, {ID: "other.0.1"}}})
	report(api.NodeReport{Node: "other"})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		var msg pb.NodeReport
		if proto.Unmarshal(data, &msg) != nil {
			return
		}
		r := wire.NodeReportFromPB(&msg)
		r.Node = "mad" // the anchor has compared it with the certificate
		s := state.New()
		enrolled := []state.Command{
			state.EnrolNode{ID: "mad", Name: "mad", Serial: "1", Now: now}, state.EnrolNode{ID: "other", Name: "other", Serial: "2", Now: now},
		}
		if res := s.Apply(1, enrolled); res.Err != nil {
			t.Fatal(res.Err)
		}
		before, _ := s.View().Node("other")
		entry, err := state.Encode([]state.Command{state.ReportNode{Report: r, Now: now}})
		if err != nil {
			return // it never becomes an entry of the log
		}
		cmds, err := state.Decode(entry)
		if err != nil {
			t.Fatalf("an entry that cannot be read again: %v", err)
		}
		if res := s.Apply(2, cmds); api.KindOf(res.Err) == api.KindInternal {
			t.Errorf("apply: %v", res.Err)
		}
		view := s.View()
		if after, ok := view.Node("other"); !ok || after.Version != before.Version {
			t.Error("a report of one node has changed another one")
		}
		if n := len(view.Nodes()); n != 2 {
			t.Errorf("there are %d nodes now", n)
		}
		if _, err := proto.Marshal(wire.ClusterViewToPB(view.For("other", "mad"))); err != nil {
			t.Errorf("nobody can be told of it: %v", err)
		}
	})
}
