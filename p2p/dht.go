package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

const (
	findTimeout = 6 * time.Second
	// findPause is how often one member is searched for. The keeper tries a
	// member that is switched off twice a minute, forever; what it would find is
	// what the records bring too.
	findPause = 2 * time.Minute
	maxFinds  = 1024 // members that are remembered to have been searched for
)

// finder searches the members for one that cannot be reached at any address
// that is known here: some member is connected to it, or was lately. It is the
// last resort, a distributed hash table (Kademlia) of this cluster alone.
//
// Every member is a server of it, since members behind NAT are reached through
// relays. It answers one question, where a peer is: no values and no provider
// records are stored, so nobody can leave anything in it. Only members are
// asked, kept in the table or, by the gated host, answered. While nobody is
// searched for it exchanges one question with each member that connects.
type finder struct {
	m   *Mesh
	dht *dht.IpfsDHT

	mu   sync.Mutex
	last map[peer.ID]time.Time
}

func newFinder(m *Mesh) (*finder, error) {
	f := &finder{m: m, last: make(map[peer.ID]time.Time)}
	var err error
	f.dht, err = dht.New(m.gated,
		dht.ProtocolPrefix(protocol.ID("/cloudless/"+m.cfg.Cluster)),
		dht.Mode(dht.ModeServer),
		dht.DisableProviders(),
		dht.DisableValues(),
		// The table holds the members that connect, and is not filled up by looking
		// for random keys. Each such look connects to twenty members, and members
		// keep their connections; up to fullMesh of them everybody is connected to
		// everybody anyway, and beyond, the relays are connected to all, and every
		// node to its neighbours. Nor is there anybody to begin with, least of all
		// the public network.
		dht.DisableAutoRefresh(),
		dht.BootstrapPeers(),
		dht.RoutingTableRefreshQueryTimeout(findTimeout), // also of the look at a new one
		dht.QueryFilter(func(_ any, info peer.AddrInfo) bool { return m.isMember(info.ID) }),
		dht.RoutingTableFilter(func(_ any, p peer.ID) bool { return m.isMember(p) }),
		dht.AddressFilter(func(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
			addrs = addrs[:min(len(addrs), maxContactAddrs)]
			return slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool { return excluded(a, m.cfg.Exclude) })
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("start the search for members: %w", err)
	}
	return f, nil
}

func (f *finder) close() {
	if f != nil {
		_ = f.dht.Close()
	}
}

// errNotSearched tells that there was no reason to search, or nobody to ask.
var errNotSearched = errors.New("not searched for")

// find searches for a member. What is found is in the peerstore afterwards.
func (f *finder) find(ctx context.Context, p peer.ID) error {
	if f == nil || !f.m.isMember(p) || len(f.m.members(nil)) == 0 || !f.due(p, time.Now()) {
		return errNotSearched
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	_, err := f.dht.FindPeer(network.WithAllowLimitedConn(ctx, "cloudless"), p)
	f.m.metrics.lookups.WithLabelValues(outcome(err == nil)).Inc()
	if err != nil {
		return fmt.Errorf("search among the members: %w", err)
	}
	return nil
}

// due reports whether a member may be searched for now, and notes that it is.
func (f *finder) due(p peer.ID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.last[p]; ok && now.Sub(at) < findPause {
		return false
	}
	if len(f.last) >= maxFinds {
		clear(f.last)
	}
	f.last[p] = now
	return true
}
