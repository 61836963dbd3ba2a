package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

const (
	// learnEvery is how often a context's peers are replaced with those of today,
	// by a command that uses it.
	learnEvery  = time.Hour
	learnWithin = time.Second // the command is done already: nobody likes to wait for this

	maxContextPeers = 8 // of each kind
	maxPeerDirect   = 6 // addresses of one
	maxPeerRelayed  = 2
)

// learnIfDue asks for the members, so that the context knows where they are
// when it is used next, also those that are no anchors: with every anchor away
// they still answer what a node knows itself. It is of no consequence when that
// fails; it is tried again in an hour.
func (a *app) learnIfDue(c *client.Client, access *clusterAccess) {
	if a.now().Sub(access.Learned) < learnEvery || c.Conn().GetState() != connectivity.Ready {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), learnWithin)
	defer cancel()
	nodes, err := c.Nodes(ctx)
	// The file may have changed since: a command can take hours.
	all, loadErr := loadContexts()
	if loadErr != nil {
		return
	}
	now, findErr := all.find(access.Name)
	if findErr != nil || now.Cluster != access.Cluster {
		return
	}
	now.Learned = a.now()
	if err == nil {
		now.learnPeers(nodes)
	}
	_ = all.save()
}

// learnPeers replaces the peers with the members of today: the anchors and
// relays, if there are any, and some others.
func (a *clusterAccess) learnPeers(nodes []api.NodeStatus) {
	var peers, others []api.NodeStatus
	for _, n := range nodes {
		switch {
		case len(n.Inventory.Addresses) == 0:
		case n.Voter || n.Inventory.Public:
			peers = append(peers, n)
		case n.State == api.NodeReady:
			others = append(others, n)
		}
	}
	slices.SortStableFunc(peers, func(x, y api.NodeStatus) int { return anchorsFirst(x) - anchorsFirst(y) })
	if len(peers) > 0 {
		a.Peers = addressesOf(peers)
	}
	if len(nodes) > 0 {
		a.Others = addressesOf(others)
	}
}

func anchorsFirst(n api.NodeStatus) int {
	if n.Voter {
		return 0
	}
	return 1
}

// addressesOf lists some addresses of some nodes, each with the PeerID.
func addressesOf(nodes []api.NodeStatus) []string {
	var out []string
	for _, n := range nodes[:min(len(nodes), maxContextPeers)] {
		direct, relayed := 0, 0
		for _, address := range n.Inventory.Addresses {
			count, limit := &direct, maxPeerDirect
			if strings.Contains(address, "/p2p-circuit") {
				count, limit = &relayed, maxPeerRelayed
			}
			if *count++; *count <= limit {
				out = append(out, address+"/p2p/"+string(n.ID))
			}
		}
	}
	return out
}
