package p2p

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// handshakeBytes pass without waiting for a share at the start of a circuit: a
	// new connection must not queue behind the bulk that its peer sends already.
	handshakeBytes = 8 << 10
	maxMetered     = maxContacts // peers that are counted one by one
)

// RelayUsage is what went through relays since the mesh was started, in bytes.
type RelayUsage struct {
	Carried        uint64 // by this device, for others
	Peers          []RelayShare
	Sent, Received uint64 // of this device's own, through other relays
}

// RelayShare is one peer's part of what this device has carried.
type RelayShare struct {
	Peer     api.NodeID
	Sent     uint64 // by the peer
	Received uint64 // by the peer
}

// RelayUsage returns what was relayed. The peer that has sent most comes first.
func (m *Mesh) RelayUsage() RelayUsage {
	u := RelayUsage{Peers: m.carried.shares()}
	for _, p := range u.Peers {
		u.Carried += p.Sent
	}
	for _, p := range m.viaRelays.shares() { // the relays: what they sent us we received
		u.Sent, u.Received = u.Sent+p.Received, u.Received+p.Sent
	}
	return u
}

// relayMeter counts the bytes of circuits by the peer at the other end of the
// stream.
type relayMeter struct {
	mu    sync.Mutex
	peers map[peer.ID]*relayCount
}

type relayCount struct{ sent, received atomic.Uint64 } // by the peer

func newRelayMeter() *relayMeter { return &relayMeter{peers: make(map[peer.ID]*relayCount)} }

// of returns the count of a peer. When there are too many peers, those that
// come later share one.
func (r *relayMeter) of(p peer.ID) *relayCount {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.peers[p]; c != nil {
		return c
	}
	if len(r.peers) >= maxMetered {
		p = ""
	}
	if r.peers[p] == nil {
		r.peers[p] = new(relayCount)
	}
	return r.peers[p]
}

func (r *relayMeter) shares() []RelayShare {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]RelayShare, 0, len(r.peers))
	for p, c := range r.peers {
		out = append(out, RelayShare{Peer: api.NodeID(p.String()), Sent: c.sent.Load(), Received: c.received.Load()})
	}
	slices.SortFunc(out, func(a, b RelayShare) int { return cmp.Or(cmp.Compare(b.Sent, a.Sent), cmp.Compare(a.Peer, b.Peer)) })
	return out
}

// circuitHost is the host below one end of libp2p's relaying: its streams are
// counted, and wait for their share where there are shares.
type circuitHost struct {
	*gatedHost
	meter  *relayMeter
	shares *shares
}

func (h circuitHost) SetStreamHandler(id protocol.ID, serve network.StreamHandler) {
	h.gatedHost.SetStreamHandler(id, func(s network.Stream) { serve(h.wrap(s)) })
}

func (h circuitHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.gatedHost.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return h.wrap(s), nil
}

func (h circuitHost) wrap(s network.Stream) network.Stream {
	p := s.Conn().RemotePeer()
	return &circuitStream{Stream: s, peer: p, count: h.meter.of(p), shares: h.shares}
}

// circuitStream is one half of a circuit. The relay reads from one and writes
// to another; one reader and one writer at a time.
type circuitStream struct {
	network.Stream
	peer   peer.ID
	count  *relayCount
	shares *shares
	read   int // bytes, until the handshake is over
}

// Read waits with what it has read until it is the peer's turn. The peer feels
// that as a slow reader, and slows down.
func (s *circuitStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.count.sent.Add(uint64(n))
	if s.read < handshakeBytes {
		s.read += n
	} else {
		s.shares.take(s.peer, n)
	}
	return n, err
}

func (s *circuitStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	s.count.received.Add(uint64(n))
	return n, err
}

var (
	relayPeerDesc = prometheus.NewDesc("cloudless_p2p_relay_peer_bytes_total",
		"Bytes that this device has carried for others, by peer and whether it sent or received them.", []string{"peer", "direction"}, nil)
	relayOwnDesc = prometheus.NewDesc("cloudless_p2p_relay_own_bytes_total",
		"Bytes of this device's own that went through relays.", []string{"direction"}, nil)
)

// relayUsage shows what was relayed as metrics.
type relayUsage struct{ m *Mesh }

// Describe implements prometheus.Collector.
func (relayUsage) Describe(ch chan<- *prometheus.Desc) { ch <- relayPeerDesc; ch <- relayOwnDesc }

// Collect implements prometheus.Collector.
func (c relayUsage) Collect(ch chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	u := c.m.RelayUsage()
	for _, p := range u.Peers {
		counter(relayPeerDesc, p.Sent, string(p.Peer), "sent")
		counter(relayPeerDesc, p.Received, string(p.Peer), "received")
	}
	counter(relayOwnDesc, u.Sent, "sent")
	counter(relayOwnDesc, u.Received, "received")
}
