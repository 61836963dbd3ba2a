package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// Twins are two daemons with one identity, because a data directory was copied
// (an SD card was cloned). Every daemon draws an instance number when it starts
// and says it in each hello, so two instances at the ends of two connections are
// a daemon that was restarted, or twins. They are twins if both still answer:
// an instance that was heard of before, and answers later, has run in between,
// and so has the other. A restarted daemon's predecessor never answers.

// twinsEvery is how often twins are asked again, and told again.
const twinsEvery = 15 * time.Second

// Twins is who cares for twins: anchors look for them, and any member can be
// told that it is one.
type Twins interface {
	// Watched reports whether this device looks for twins among its peers.
	Watched() bool
	// Found is told that two daemons with a peer's identity run, and where they
	// are connected from; every twinsEvery while they do.
	Found(p api.NodeID, addresses []string)
	// Told is told by an anchor that another daemon runs with this device's own
	// identity, and from where it is connected.
	Told(by api.NodeID, address string)
}

// noteInstance remembers which instance is at the other end of a connection.
func (m *Mesh) noteInstance(c network.Conn, instance uint64) {
	if instance == 0 || m.cfg.Twins == nil {
		return
	}
	p := c.RemotePeer()
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	r := m.adm.records[p]
	if r == nil || r.member == nil || c.IsClosed() {
		return
	}
	if r.instances == nil {
		r.instances = make(map[network.Conn]uint64)
	}
	r.instances[c] = instance
}

// dropInstance forgets a connection that was closed.
func (m *Mesh) dropInstance(c network.Conn) {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	if r := m.adm.records[c.RemotePeer()]; r != nil {
		delete(r.instances, c)
	}
}

// suspectTwins returns one connection for each instance of a daemon, if there
// are several and they were not asked lately.
func (m *Mesh) suspectTwins(p peer.ID, now time.Time) map[uint64]network.Conn {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	r := m.adm.records[p]
	// A person may well run two commands at once.
	if r == nil || r.member == nil || !r.member.Has(api.RoleNode) || now.Sub(r.twins) < twinsEvery {
		return nil
	}
	ends := make(map[uint64]network.Conn)
	for c, instance := range r.instances {
		if !c.IsClosed() {
			ends[instance] = c
		}
	}
	if len(ends) < 2 {
		return nil
	}
	r.twins = now
	return ends
}

// lookForTwins asks suspects on each of their connections who is there.
func (m *Mesh) lookForTwins(p peer.ID) {
	if m.cfg.Twins == nil || !m.cfg.Twins.Watched() {
		return
	}
	ends := m.suspectTwins(p, time.Now())
	if ends == nil {
		return
	}
	m.spawn(func() {
		var alive []network.Conn
		for instance, c := range ends {
			got, err := m.exchange(m.ctx, c)
			switch {
			case err == nil && got == instance:
				alive = append(alive, c)
			case err != nil:
				m.dropInstance(c) // it is dying; if not, it will say hello again
			}
		}
		if len(alive) > 1 {
			m.tellTwins(p, alive)
		}
	})
}

// tellTwins tells both, and whoever watches.
func (m *Mesh) tellTwins(p peer.ID, ends []network.Conn) {
	addresses := make([]string, len(ends))
	for i, c := range ends {
		addresses[i] = c.RemoteMultiaddr().String()
	}
	m.metrics.twins.Inc()
	m.cfg.Twins.Found(api.NodeID(p.String()), addresses)
	for i, c := range ends {
		other := addresses[(i+1)%len(ends)]
		if err := m.sayTwin(c, other); err != nil && m.ctx.Err() == nil {
			m.log.Info("could not tell a daemon that another one has its identity",
				zap.Stringer("peer", p), zap.String("address", addresses[i]), zap.Error(err))
		}
	}
}

func (m *Mesh) sayTwin(c network.Conn, other string) (err error) {
	ctx, cancel := context.WithTimeout(m.ctx, helloTimeout)
	defer cancel()
	s, err := m.openStream(ctx, c, api.ProtoHello)
	if err != nil {
		return err
	}
	defer resetUnlessClosed(s, &err)
	_ = s.SetDeadline(time.Now().Add(helloTimeout))
	return writeFrame(s, maxHelloFrame, helloMessage{Version: helloVersion, Twin: other})
}

// hearTwin believes anchors.
func (m *Mesh) hearTwin(from peer.ID, address string) {
	member, ok := m.admitted(from)
	if m.cfg.Twins == nil || !ok || !member.Has(api.RoleAnchor) {
		return
	}
	m.cfg.Twins.Told(member.ID, clip(address, maxReason))
}
