package blockstore

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// gate stands between the network and bitswap. It drops what strangers send,
// shows the client only the peers that a fetch uses as sources, and shuts out a
// source that sends anything but what it was asked for.
type gate struct {
	client  *client.Client
	server  *server.Server
	cfg     Config
	metrics *metrics

	mu     sync.Mutex
	closed bool
	users  map[peer.ID]map[*sources]struct{} // who uses a source
	banned map[peer.ID]time.Time             // until when
	asked  recent
}

func newGate(c *client.Client, s *server.Server, cfg Config, m *metrics) *gate {
	return &gate{
		client: c, server: s, cfg: cfg, metrics: m,
		users:  make(map[peer.ID]map[*sources]struct{}),
		banned: make(map[peer.ID]time.Time),
		asked:  newRecent(4096),
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// use makes p a source of s; ok is false while p is banned.
func (g *gate) use(p peer.ID, s *sources) (ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until, banned := g.banned[p]; banned {
		if time.Now().Before(until) {
			return false
		}
		delete(g.banned, p)
	}
	if g.users[p] == nil {
		g.users[p] = make(map[*sources]struct{})
		g.client.PeerConnected(p)
	}
	g.users[p][s] = struct{}{}
	return true
}

// release ends the use of a source.
func (g *gate) release(p peer.ID, s *sources) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.users[p][s]; !ok {
		return
	}
	delete(g.users[p], s)
	if len(g.users[p]) == 0 {
		delete(g.users, p)
		g.client.PeerDisconnected(p)
	}
}

// uses reports whether p still is a source of s: neither lost nor banned.
func (g *gate) uses(p peer.ID, s *sources) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.users[p][s]
	return ok
}

// again makes the client forget what it asked p for and ask anew: a peer that
// could not send an answer does not try twice.
func (g *gate) again(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.users[p]) > 0 {
		g.client.PeerDisconnected(p)
		g.client.PeerConnected(p)
	}
}

// ask records that leaf h is going to be requested.
func (g *gate) ask(h hash) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked.add(h)
}

// drop takes p from all that use it as a source and wakes them; mu is held.
func (g *gate) drop(p peer.ID) {
	users := g.users[p]
	if users == nil {
		return
	}
	delete(g.users, p)
	g.client.PeerDisconnected(p)
	for s := range users {
		s.notify()
	}
}

// PeerConnected is called by the network. The client hears of it when a fetch
// takes the peer as a source.
func (g *gate) PeerConnected(p peer.ID) { g.server.PeerConnected(p) }

// PeerDisconnected is called by the network, also when messages to a peer fail.
func (g *gate) PeerDisconnected(p peer.ID) {
	g.server.PeerDisconnected(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(p)
}

// ReceiveError is called by the network for messages that cannot be decoded;
// the stream is closed already, and the fetch's timers do the rest.
func (g *gate) ReceiveError(error) {}

// ReceiveMessage is called by the network; each stream has its own goroutine.
func (g *gate) ReceiveMessage(ctx context.Context, p peer.ID, msg message.BitSwapMessage) {
	if !g.cfg.Allowed(api.NodeID(p.String())) {
		return
	}
	source, ok := g.admit(p, msg)
	if !ok {
		return
	}
	if source {
		g.client.ReceiveMessage(ctx, p, msg)
	}
	g.server.ReceiveMessage(ctx, p, msg)
}

// admit reports whether p is a source at present, and false for ok when its
// message must go no further.
func (g *gate) admit(p peer.ID, msg message.BitSwapMessage) (source, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false, false
	}
	for _, b := range msg.Blocks() {
		// The CID was computed from the bytes, so a block with wrong content
		// looks like one that nobody wants.
		if h, leaf := hashOf(b.Cid()); leaf && g.asked.has(h) {
			continue
		}
		g.metrics.lies.Inc()
		g.ban(p)
		return false, false
	}
	return len(g.users[p]) > 0, true
}

// ban shuts p out as a source; mu is held. More of what p had sent before it
// was caught may follow.
func (g *gate) ban(p peer.ID) {
	now := time.Now()
	if now.Before(g.banned[p]) {
		return
	}
	g.banned[p] = now.Add(g.cfg.Quarantine)
	g.drop(p)
	g.cfg.Log.Warn("node sent a block that was not asked for, or with wrong content; not asking it for a while",
		zap.String("peer", p.String()), zap.Duration("for", g.cfg.Quarantine))
}

// recent remembers the last n hashes. Answers to fetches that have ended arrive
// late; with it they are not mistaken for lies.
type recent struct {
	set  map[hash]int // how often it stands in the ring
	ring []hash
	next int
	max  int
}

func newRecent(n int) recent { return recent{set: make(map[hash]int), max: n} }

func (r *recent) has(h hash) bool { return r.set[h] > 0 }

func (r *recent) add(h hash) {
	r.set[h]++
	if len(r.ring) < r.max {
		r.ring = append(r.ring, h)
		return
	}
	old := r.ring[r.next]
	if r.set[old]--; r.set[old] == 0 {
		delete(r.set, old)
	}
	r.ring[r.next] = h
	r.next = (r.next + 1) % r.max
}
