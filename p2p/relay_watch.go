package p2p

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/internal/retry"
)

const (
	relayLook  = time.Second // how often the relays in use are looked at
	relayQuiet = pulseIdle   // one that has shown no sign of life for this long is asked
	// relaySilent is how long a relay may answer nothing until another one is
	// looked for: it has missed two probes by then.
	relaySilent = 1500 * time.Millisecond
)

// watchRelays finds out that a relay has died without a word. Libp2p takes half a
// minute, and until then this device would be told of under a dead address, and
// wait for answers on connections through the relay that never come. Watched are
// the relays that hold a reservation, and those that connections run through.
func (m *Mesh) watchRelays(ctx context.Context) {
	for retry.Sleep(ctx, retry.Jitter(relayLook)) == nil {
		used := m.circuitsByRelay()
		for _, p := range m.reserver.relays() {
			if _, ok := used[p]; !ok {
				used[p] = nil
			}
		}
		for p, circuits := range used {
			quiet := func(c network.Conn) bool { return !m.pulses.lives(c, relayQuiet) }
			if slices.ContainsFunc(m.direct(p), quiet) {
				m.askRelay(ctx, p)
			}
			m.heedRelay(ctx, p, circuits)
		}
	}
}

// circuitsByRelay returns the connections through relays.
func (m *Mesh) circuitsByRelay() map[peer.ID][]network.Conn {
	out := make(map[peer.ID][]network.Conn)
	for _, c := range m.host.Network().Conns() {
		if relay, ok := relayIn(c.RemoteMultiaddr()); ok && !c.IsClosed() {
			out[relay] = append(out[relay], c)
		}
	}
	return out
}

// relayIn returns the relay that an address leads through.
func relayIn(a multiaddr.Multiaddr) (peer.ID, bool) {
	if !isRelayed(a) {
		return "", false
	}
	text, err := a.ValueForProtocol(multiaddr.P_P2P) // the first one; the last is the peer itself
	if err != nil {
		return "", false
	}
	p, err := peer.Decode(text)
	return p, err == nil
}

func (m *Mesh) askRelay(ctx context.Context, p peer.ID) {
	if m.pulses.claim(p) {
		m.spawn(func() {
			defer m.pulses.release(p)
			m.feelPulse(ctx, p)
		})
	}
}

// silence is for how long no direct connection to p has answered, 0 when one
// does or there is none.
func (m *Mesh) silence(p peer.ID) time.Duration {
	var shortest time.Duration
	for _, c := range m.direct(p) {
		quiet := m.pulses.silentFor(c)
		if quiet == 0 {
			return 0
		}
		if shortest == 0 || quiet < shortest {
			shortest = quiet
		}
	}
	return shortest
}

// deadEnd reports whether an address leads through a relay that does not answer.
func (m *Mesh) deadEnd(a multiaddr.Multiaddr) bool {
	relay, ok := relayIn(a)
	return ok && m.silence(relay) >= relaySilent
}

// silentFor is how long ago c was first asked in vain, 0 when it answers.
func (u *pulses) silentFor(c network.Conn) time.Duration {
	u.mu.RLock()
	defer u.mu.RUnlock()
	if since, ok := u.silent[c]; ok {
		return max(time.Since(since), 1)
	}
	return 0
}

// heedRelay does what the silence of a relay, or its end, asks for: streams are
// opened on other connections, another relay is looked for, and after a while
// what runs through this one is ended, to begin anew through another one.
func (m *Mesh) heedRelay(ctx context.Context, p peer.ID, circuits []network.Conn) {
	quiet := m.silence(p)
	for _, c := range circuits {
		m.pulses.note(c, quiet == 0)
	}
	if quiet >= relaySilent {
		m.reserver.wake()
	}
	if quiet < silentBeside || len(circuits) == 0 || !m.anotherRelays(ctx, p) {
		return
	}
	if slices.ContainsFunc(m.direct(p), func(c network.Conn) bool { return m.answers(ctx, c, pulseAgain) }) {
		return // slow, not dead
	}
	m.log.Info("a relay is silent, leaving the connections through it", zap.Stringer("peer", p), zap.Int("connections", len(circuits)))
	m.metrics.deadPaths.Add(float64(len(circuits)))
	var others []peer.ID
	for _, c := range circuits {
		others = append(others, c.RemotePeer())
		_ = c.Close()
	}
	m.keeper.reset(others)
}

// anotherRelays reports whether a relay other than p answers: otherwise it is this
// device that is cut off, and there is nothing better.
func (m *Mesh) anotherRelays(ctx context.Context, p peer.ID) bool {
	for _, other := range m.contacts.relays() {
		c := m.best(other)
		if other != p && c != nil && !isRelayed(c.RemoteMultiaddr()) && m.silence(other) == 0 && m.answers(ctx, c, pulseTimeout) {
			return true
		}
	}
	return false
}
