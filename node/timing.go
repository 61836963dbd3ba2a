package node

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta"
)

// How the paths between the anchors are looked at. A path must look the same a
// few times in a row: changing the timing closes the log for a moment, and a
// leader hands over first.
const (
	lookAtPaths = 20 * time.Second
	sameLooks   = 3
)

// raftTiming is the patience to begin a term with.
func (d *daemon) raftTiming() raftmeta.Timing {
	switch {
	case d.cfg.Raft != (raftmeta.Timing{}):
		return d.cfg.Raft
	case d.cfg.RaftTiming == "wan":
		return raftmeta.WAN()
	case d.cfg.RaftTiming == "lan":
		return raftmeta.LAN()
	}
	slowest, relayed := longestPath(d.views.current(), d.self, d.mesh.Path)
	return raftmeta.TimingFor(slowest, relayed, raftmeta.LAN())
}

// awaitRetiming returns true when the anchor should be patient in another way:
// its paths to the other voters have become longer or shorter.
func (a *anchor) awaitRetiming(ctx context.Context) bool {
	d := a.daemon
	if d.cfg.RaftTiming != "auto" || d.cfg.Raft != (raftmeta.Timing{}) {
		<-ctx.Done()
		return false
	}
	look := time.NewTicker(lookAtPaths)
	defer look.Stop()
	for same := 0; ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
		slowest, relayed := longestPath(d.views.current(), d.self, d.mesh.Path)
		now := raftmeta.TimingFor(slowest, relayed, a.timing)
		if now == a.timing {
			same = 0
			continue
		}
		if same++; same == sameLooks {
			d.log.Info("the paths between the anchors have changed, and so does their patience",
				zap.Duration("heartbeat", now.Heartbeat), zap.Duration("before", a.timing.Heartbeat),
				zap.Duration("rtt", slowest), zap.Bool("relayed", relayed))
			return true
		}
	}
}

// longestPath returns the longest round trip from a node to the voters of a
// view, and whether one of them is reached by a relay.
func longestPath(v api.ClusterView, self api.NodeID, path func(api.NodeID) (api.Path, time.Duration)) (slowest time.Duration, relayed bool) {
	for _, n := range v.Nodes {
		if !n.Voter || n.ID == self {
			continue
		}
		kind, rtt := path(n.ID) // nothing is known of one that is away
		slowest, relayed = max(slowest, rtt), relayed || kind == api.PathRelayed
	}
	return slowest, relayed
}
