package p2p

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	pulseEvery   = time.Second
	pulseIdle    = 5                       // only every so many, where streams are open and hardly used
	pulseBusy    = 4096                    // bytes per second that make a use
	pulseTimeout = 1200 * time.Millisecond // without an answer a connection is silent
	pulseAgain   = 800 * time.Millisecond  // for the last chance of one that is about to be closed
	pulseFor     = 30 * time.Second        // how long a peer is watched after it was dialled
	// silentFor is how long a connection whose peer answers by a relay may stay
	// silent until it is closed, so that what hangs on it begins anew. Shorter
	// troubles of a path end no stream.
	silentFor = 8 * time.Second
	// silentBeside is the same while another direct connection to the peer answers:
	// the path is well, and one of the transports is blocked.
	silentBeside = 3 * time.Second
	maxWays      = 8 // that are tried at once
)

// pulses finds direct connections that have died without a word: libp2p takes
// 30 seconds and more to see it. Those that carry traffic, or were chosen for
// a stream lately, are probed every second; those that are only held open, as
// that to the leading anchor always is, every few seconds: a probe each second
// and way would be most of what an idle node sends. One that does not answer is passed over
// for a relayed one until it answers again; without a relayed one the peer is
// asked by a relay and over the other transport, and when it answers there, the
// dead connection is closed.
type pulses struct {
	mu      sync.RWMutex
	used    map[peer.ID]time.Time
	silent  map[network.Conn]time.Time // since when
	running map[peer.ID]bool
}

func newPulses() *pulses {
	return &pulses{
		used: make(map[peer.ID]time.Time), silent: make(map[network.Conn]time.Time), running: make(map[peer.ID]bool),
	}
}

// isSilent reports whether c did not answer when it was asked last.
func (u *pulses) isSilent(c network.Conn) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	_, ok := u.silent[c]
	return ok
}

// use notes that a stream to p was wanted.
func (u *pulses) use(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.used[p] = time.Now()
}

func (u *pulses) wasUsed(p peer.ID) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	at, ok := u.used[p]
	return ok && time.Since(at) < pulseFor
}

// note records whether c has answered and returns for how long it has been
// silent.
func (u *pulses) note(c network.Conn, answered bool) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if answered || c.IsClosed() {
		delete(u.silent, c)
		return 0
	}
	if _, ok := u.silent[c]; !ok {
		u.silent[c] = time.Now()
	}
	return time.Since(u.silent[c])
}

// giveUp closes the silent connections to a peer that has moved, or all of them
// when this device has: they will not speak again.
func (u *pulses) giveUp(moved func(peer.ID) bool) {
	u.mu.RLock()
	var dead []network.Conn
	for c := range u.silent {
		if moved(c.RemotePeer()) {
			dead = append(dead, c)
		}
	}
	u.mu.RUnlock()
	for _, c := range dead {
		_ = c.Close()
	}
}

// prune forgets what is gone.
func (u *pulses) prune() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.silent {
		if c.IsClosed() {
			delete(u.silent, c)
		}
	}
	for p, at := range u.used {
		if time.Since(at) >= pulseFor {
			delete(u.used, p)
		}
	}
}

// claim lets one pulse per peer run.
func (u *pulses) claim(p peer.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.running[p] {
		return false
	}
	u.running[p] = true
	return true
}

func (u *pulses) release(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.running, p)
}

// watchPaths feels the pulse of the direct connections that matter.
func (m *Mesh) watchPaths(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		m.pulses.prune()
		for _, s := range m.members(nil) {
			if (m.pulses.wasUsed(s.id) || m.busy(s.id, n%pulseIdle == 0)) && m.pulses.claim(s.id) {
				m.spawn(func() {
					defer m.pulses.release(s.id)
					m.feelPulse(ctx, s.id)
				})
			}
		}
	}
}

// busy reports whether p has streams on a direct connection, gossip aside, and
// traffic; idle means that the streams are enough.
func (m *Mesh) busy(p peer.ID, idle bool) bool {
	if traffic := m.counter.GetBandwidthForPeer(p); !idle && traffic.RateIn+traffic.RateOut < pulseBusy {
		return false
	}
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if pathOf(c) == api.PathRelayed {
			continue
		}
		for _, s := range c.GetStreams() {
			if id := string(s.Protocol()); id != "" && id != api.ProtoProbe && !strings.HasPrefix(id, "/meshsub/") {
				return true
			}
		}
	}
	return false
}

// feelPulse probes the direct connections to p, and acts when none answers.
func (m *Mesh) feelPulse(ctx context.Context, p peer.ID) {
	alive := false
	var longest time.Duration
	var silent, old, relayed []network.Conn
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if pathOf(c) == api.PathRelayed {
			relayed = append(relayed, c)
			continue
		}
		answered := m.answers(ctx, c, pulseTimeout)
		if ctx.Err() != nil {
			return
		}
		alive = alive || answered
		quiet := m.pulses.note(c, answered)
		if !answered {
			silent = append(silent, c)
			m.outside.suspect()
		}
		if quiet >= silentBeside {
			old = append(old, c)
		}
		longest = max(longest, quiet)
	}
	if alive {
		m.bury(old) // the peer has come back in another way
		return
	}
	if len(silent) == 0 || len(relayed) > 0 && longest < silentFor {
		return
	}
	if !m.answersElsewhere(ctx, p, silent, relayed) {
		return // the peer, or this device, is cut off: there is nothing better
	}
	if slices.ContainsFunc(silent, func(c network.Conn) bool { return m.answers(ctx, c, pulseAgain) }) || ctx.Err() != nil {
		return // slow, not dead
	}
	m.bury(silent)
	m.keeper.reset([]peer.ID{p})
}

// bury closes connections that are dead, so that what hangs on them, at either
// end and below circuits, begins anew.
func (m *Mesh) bury(dead []network.Conn) {
	for _, c := range dead {
		m.log.Info("a direct path is dead, using another one", zap.Stringer("peer", c.RemotePeer()), zap.Stringer("address", c.RemoteMultiaddr()))
		m.metrics.deadPaths.Inc()
		_ = c.Close()
	}
}

// answers reports whether p echoes a few bytes over a given connection.
func (m *Mesh) answers(ctx context.Context, c network.Conn, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	s, err := m.openStream(ctx, c, protocol.ID(api.ProtoProbe))
	if err != nil {
		return false
	}
	_ = s.SetDeadline(time.Now().Add(within))
	var b [probeSize]byte
	if _, err = s.Write(b[:]); err == nil {
		_, err = io.ReadFull(s, b[:])
	}
	if err != nil {
		_ = s.Reset()
		return false
	}
	_ = s.Close()
	return true
}

// answersElsewhere reports whether p can be reached in another way while its
// direct connections are silent: by relay, or over the other transport where one
// of the two is blocked.
func (m *Mesh) answersElsewhere(ctx context.Context, p peer.ID, silent, relayed []network.Conn) bool {
	for _, c := range relayed {
		if m.answers(ctx, c, pulseTimeout) {
			return true
		}
	}
	if len(relayed) > 0 {
		return false
	}
	ways := m.circuits(p)
	for _, a := range m.contacts.addrs(p) {
		dead := slices.ContainsFunc(silent, func(c network.Conn) bool { return transportOf(c.RemoteMultiaddr()) == transportOf(a) })
		if !dead && !isRelayed(a) && !excluded(a, m.cfg.Exclude) && m.worthDialling(p, a) {
			ways = append(ways, a)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
	defer cancel()
	var found atomic.Bool
	each(ways, maxWays, func(a multiaddr.Multiaddr) {
		c, err := m.dialApart(ctx, p, a)
		if err != nil {
			return
		}
		_ = c.Close()
		found.Store(true)
		cancel() // one is enough
	})
	return found.Load()
}
