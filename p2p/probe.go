package p2p

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	probeSize     = 8 // bytes, echoed as they are
	probeTimeout  = 5 * time.Second
	probeServing  = 30 * time.Second // how long one stream may ask
	probeParallel = 8
	rttWeight     = 4 // a new measurement counts a quarter: there are few
)

// Probe measures a round trip to a member, through its daemon, over the best
// connection.
func (m *Mesh) Probe(ctx context.Context, id api.NodeID) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	s, err := m.Dial(ctx, id, api.ProtoProbe)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })()
	sent, back := make([]byte, probeSize), make([]byte, probeSize)
	binary.BigEndian.PutUint64(sent, rand.Uint64())
	begun := time.Now()
	if _, err := s.Write(sent); err != nil {
		return 0, unreachable(id, fmt.Errorf("probe: %w", err))
	}
	if _, err := io.ReadFull(s, back); err != nil {
		return 0, unreachable(id, fmt.Errorf("probe: %w", err))
	}
	rtt := time.Since(begun)
	if string(sent) != string(back) {
		return 0, api.Errorf(api.KindInternal, "%s answers a probe with other bytes", id)
	}
	m.observeRTT(id, rtt)
	return rtt, nil
}

func (m *Mesh) observeRTT(id api.NodeID, rtt time.Duration) {
	m.metrics.rtt.Observe(rtt.Seconds())
	p, err := peer.Decode(string(id))
	if err != nil {
		return
	}
	m.update(p, func(r *record) {
		if r.rtt == 0 {
			r.rtt = rtt
			return
		}
		r.rtt += (rtt - r.rtt) / rttWeight
	})
}

// serveProbe echoes, or answers one question: about another member, or about
// the asker.
func (m *Mesh) serveProbe() {
	m.claim(api.ProtoProbe)
	m.host.SetStreamHandler(protocol.ID(api.ProtoProbe), m.guard(api.ProtoProbe, nil, func(s network.Stream, asker api.Member) {
		defer s.Close()
		_ = s.SetDeadline(time.Now().Add(probeServing))
		var b [probeSize]byte
		for {
			if _, err := io.ReadFull(s, b[:]); err != nil {
				return
			}
			if b == whoMagic {
				_ = m.answerWho(s)
				return
			}
			if b == askMagic {
				if err := m.answerAsk(s, asker); err != nil {
					m.log.Debug("a question was not answered", zap.String("peer", string(asker.ID)), zap.Error(err))
					_ = s.ResetWithError(codeBusy)
				}
				return
			}
			if _, err := s.Write(b[:]); err != nil {
				return
			}
		}
	}))
}

// probeAll measures every admitted peer again and again, and one that has never
// been measured soon.
func (m *Mesh) probeAll(ctx context.Context) {
	for n := 0; ; n++ {
		every := m.cfg.ProbeEvery / 2 * time.Duration(1+len(m.members(nil))/probeParallel) // so that what many peers cost is bounded
		pause := every*4/5 + rand.N(every*2/5+1)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		m.counter.TrimIdle(time.Now().Add(-time.Hour))
		each(m.members(nil), probeParallel, func(s snapshot) {
			if !m.acknowledged(s, every) && (s.rtt == 0 || n%2 == 0) {
				m.measure(ctx, s)
			}
		})
	}
}

// acknowledged takes the round trip of what a peer has acknowledged lately, which
// costs nothing, and reports whether there was any.
func (m *Mesh) acknowledged(s snapshot, lately time.Duration) bool {
	c := m.best(s.id)
	if c == nil {
		return false
	}
	rtt, ok := m.pulses.sample(c, lately)
	if ok {
		m.observeRTT(s.member.ID, rtt)
	}
	return ok
}

func (m *Mesh) measure(ctx context.Context, s snapshot) {
	if _, err := m.Probe(ctx, s.member.ID); err != nil && ctx.Err() == nil {
		m.log.Debug("probe failed", zap.Stringer("peer", s.id), zap.Error(err))
		m.pulses.use(s.id) // the path may be dead
	}
}
