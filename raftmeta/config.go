package raftmeta

import (
	"context"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// Streams connects the anchors. Both ends of a connection are authenticated
// and hold the role of an anchor.
type Streams interface {
	// Dial opens a connection to another anchor.
	Dial(ctx context.Context, to api.NodeID) (net.Conn, error)
	// Accept waits for a connection that another anchor opens.
	Accept() (net.Conn, error)
	// Close makes Accept return an error.
	Close() error
}

// Config configures an Anchor.
type Config struct {
	Dir     string     // data directory, made when it is missing; this anchor's alone
	ID      api.NodeID // of this node
	Streams Streams    // closed by the anchor

	// Bootstrap starts a cluster of this one anchor if the directory is empty.
	// Otherwise an empty anchor waits to be added by the others.
	Bootstrap bool

	Timing  Timing                // default LAN
	Log     *zap.Logger           // default none
	Metrics prometheus.Registerer // default none
}

// Timing is how patient the anchors are with each other.
type Timing struct {
	Heartbeat time.Duration // silence of the leader that makes a follower stand for election; doubled at random
	Election  time.Duration // how long a candidate waits for votes; doubled at random
	Lease     time.Duration // silence of the majority that makes a leader step down; at most Heartbeat
	Commit    time.Duration // longest wait before followers learn of a commit when nothing else is sent
}

// LAN is for anchors within a few tens of milliseconds of each other: a dead
// leader is replaced in 1 to 3 s.
func LAN() Timing {
	return Timing{Heartbeat: time.Second, Election: time.Second, Lease: 500 * time.Millisecond, Commit: 50 * time.Millisecond}
}

// WAN is for anchors on different continents or behind relays.
func WAN() Timing {
	return Timing{Heartbeat: 3 * time.Second, Election: 3 * time.Second, Lease: 2500 * time.Millisecond, Commit: 100 * time.Millisecond}
}

// The bounds between near and far anchors. They are apart, so that a path in
// between changes nothing.
const (
	farAbove  = 100 * time.Millisecond
	nearBelow = 60 * time.Millisecond
)

// TimingFor returns the timing for the slowest path between an anchor and the
// other voters; relayed paths are far, however short, because the relay adds
// what it likes. now is the timing in use.
func TimingFor(rtt time.Duration, relayed bool, now Timing) Timing {
	switch {
	case relayed || rtt > farAbove:
		return WAN()
	case rtt < nearBelow:
		return LAN()
	}
	return now
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Dir == "":
		return c, api.Invalid("dir", "is missing")
	case c.ID == "":
		return c, api.Invalid("id", "is missing")
	case c.Streams == nil:
		return c, api.Invalid("streams", "are missing")
	}
	if c.Timing == (Timing{}) {
		c.Timing = LAN()
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c, nil
}
