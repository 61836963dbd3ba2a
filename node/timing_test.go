package node

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta"
)

// The patience of the anchors follows the slowest path between voters.
func TestTimingFollowsThePaths(t *testing.T) {
	lan, wan := raftmeta.LAN(), raftmeta.WAN()
	type path struct {
		kind api.Path
		rtt  time.Duration
	}
	near, between := path{api.PathDirect, 5 * time.Millisecond}, path{api.PathDirect, 80 * time.Millisecond}
	far, relayed, away := path{api.PathDirect, 150 * time.Millisecond}, path{api.PathRelayed, 5 * time.Millisecond}, path{api.PathNone, 0}
	for _, c := range []struct {
		name      string
		b, c      path
		now, want raftmeta.Timing
	}{
		{"a LAN", near, near, lan, lan},
		{"one far voter is enough", near, far, lan, wan},
		{"a relay is far", near, relayed, lan, wan},
		{"one that is away says nothing", near, away, lan, lan},
		{"in between changes nothing", near, between, lan, lan},
		{"nor back", near, between, wan, wan},
		{"near again", near, near, wan, lan},
	} {
		paths := map[api.NodeID]path{"b": c.b, "c": c.c, "home": far}
		v := api.ClusterView{Nodes: []api.Node{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}, {ID: "home"}}}
		slowest, byRelay := longestPath(v, "a", func(id api.NodeID) (api.Path, time.Duration) { return paths[id].kind, paths[id].rtt })
		if got := raftmeta.TimingFor(slowest, byRelay, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
