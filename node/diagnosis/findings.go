// Package diagnosis judges what a node has found out about the network around
// it: what is well, what is not and why, and what a person can change. It looks
// at nothing itself, so that every illness can be had as a value.
package diagnosis

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/svcnet"
)

// Findings are what a node has found out.
type Findings struct {
	Self     api.NodeID
	View     api.ClusterView // the last one received
	Mesh     p2p.Diagnosis
	Usage    p2p.RelayUsage
	Clocks   []Clock      // of the other anchors that answered
	Silent   []api.NodeID // those that did not
	Services Services
}

// Clock is how far a node's clock is ahead of this one's.
type Clock struct {
	Node        api.NodeID
	Ahead       time.Duration
	Uncertainty time.Duration // half a round trip
}

// Services is how virtual addresses and names are on this host.
type Services struct {
	Missing  string // why there are none, "" when there are
	Status   svcnet.Status
	Resolver svcnet.HostResolver
	Asked    string // name that was looked up
	DNS      error  // nil when the node's own resolver answered
}
