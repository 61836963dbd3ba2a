package p2p

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	pulseEvery   = time.Second
	pulseIdle    = 6 * time.Second         // where streams are open and hardly used; a leader speaks every 5 s
	pulseLate    = pulseEvery / 2          // by which a look, or the answer to it, may come late
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
// a stream lately, must show each second that they live; those that are only
// held open, as that to the leading anchor always is, every few seconds. What
// the peer acknowledges over QUIC, heartbeats for example, shows it for
// nothing; otherwise a probe does. One that does not answer is passed over
// for a relayed one until it answers again; without a relayed one the peer is
// asked by a relay and over the other transport, and when it answers there, the
// dead connection is closed.
type pulses struct {
	mu      sync.RWMutex
	used    map[peer.ID]time.Time
	lived   map[network.Conn]life
	silent  map[network.Conn]time.Time // since when
	running map[peer.ID]bool
}

// life is the last sign of it on a connection: an answer, or an acknowledgement.
type life struct {
	at  time.Time
	rtt time.Duration // of the last acknowledgement; another one hardly ever takes as long to the nanosecond
}

func newPulses() *pulses {
	return &pulses{
		used: make(map[peer.ID]time.Time), lived: make(map[network.Conn]life),
		silent: make(map[network.Conn]time.Time), running: make(map[peer.ID]bool),
	}
}

// look notes whether anything was acknowledged on c since the last look. Of TCP
// connections it does not know.
func (u *pulses) look(c network.Conn) {
	var qc *quic.Conn
	if !c.As(&qc) || qc == nil {
		return
	}
	rtt := qc.ConnectionStats().LatestRTT
	u.mu.Lock()
	defer u.mu.Unlock()
	if rtt != u.lived[c].rtt {
		u.lived[c] = life{time.Now(), rtt}
		delete(u.silent, c)
	}
}

// sample returns the round trip of the last acknowledgement on c, if that is
// not older than it may be.
func (u *pulses) sample(c network.Conn, within time.Duration) (time.Duration, bool) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	l := u.lived[c]
	return l.rtt, l.rtt > 0 && time.Since(l.at) < within
}

// lives reports whether c gave a sign of life that recently.
func (u *pulses) lives(c network.Conn, within time.Duration) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return time.Since(u.lived[c].at) < within
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
	if c.IsClosed() {
		delete(u.silent, c)
		return 0
	}
	if answered {
		delete(u.silent, c)
		u.lived[c] = life{time.Now(), u.lived[c].rtt}
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
	maps.DeleteFunc(u.silent, func(c network.Conn, _ time.Time) bool { return c.IsClosed() })
	maps.DeleteFunc(u.lived, func(c network.Conn, _ life) bool { return c.IsClosed() })
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
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		m.pulses.prune()
		for _, s := range m.members(nil) {
			conns := m.direct(s.id)
			for _, c := range conns {
				m.pulses.look(c)
			}
			within := m.patience(s.id, conns)
			dead := func(c network.Conn) bool { return !m.pulses.lives(c, within) }
			if within > 0 && slices.ContainsFunc(conns, dead) && m.pulses.claim(s.id) {
				m.spawn(func() {
					defer m.pulses.release(s.id)
					m.feelPulse(ctx, s.id)
				})
			}
		}
	}
}

// direct returns the connections to p that no relay carries.
func (m *Mesh) direct(p peer.ID) []network.Conn {
	return slices.DeleteFunc(m.host.Network().ConnsToPeer(p), func(c network.Conn) bool { return pathOf(c) == api.PathRelayed })
}

// patience says how old the last sign of life may be on the direct connections
// to p: little where there is traffic, or a stream was wanted lately, and more
// where streams are only held open. 0: nobody cares.
func (m *Mesh) patience(p peer.ID, direct []network.Conn) time.Duration {
	if m.pulses.wasUsed(p) {
		return pulseEvery - pulseLate
	}
	if !slices.ContainsFunc(direct, func(c network.Conn) bool { return slices.ContainsFunc(c.GetStreams(), held) }) {
		return 0
	}
	if traffic := m.counter.GetBandwidthForPeer(p); traffic.RateIn+traffic.RateOut >= pulseBusy {
		return pulseEvery - pulseLate
	}
	return pulseIdle - pulseLate
}

// held reports whether somebody would miss a stream.
func held(s network.Stream) bool {
	return s.Protocol() != "" && s.Protocol() != api.ProtoProbe && !upkeep(s)
}

// upkeep reports whether a stream belongs to gossip, or to the search among the
// members, which open another one by themselves.
func upkeep(s network.Stream) bool {
	id := string(s.Protocol())
	return strings.HasPrefix(id, "/meshsub/") || strings.HasPrefix(id, "/cloudless/") && strings.HasSuffix(id, "/kad/1.0.0")
}

// feelPulse probes the direct connections to p that gave no sign of life just
// now, and acts when none does.
func (m *Mesh) feelPulse(ctx context.Context, p peer.ID) {
	alive := false
	var longest time.Duration
	var silent, old, relayed []network.Conn
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if pathOf(c) == api.PathRelayed {
			relayed = append(relayed, c)
			continue
		}
		if m.pulses.lives(c, pulseEvery-pulseLate) {
			alive = true
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
