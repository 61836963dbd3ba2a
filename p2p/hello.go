package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	helloVersion  = 1
	helloTimeout  = 5 * time.Second
	maxReason     = 500 // characters of a refusal
	renewAhead    = 10 * time.Minute
	recheckEvery  = time.Minute
	refreshPause  = 15 * time.Second // between two refreshes with one peer
	goodbyeWithin = 300 * time.Millisecond
	refusalLinger = 500 * time.Millisecond
)

// helloMessage is every message of the hello protocol:
//
//	opener → other   Certificate
//	other  → opener  Certificate, or Refused
//	opener → other   nothing set, or Refused
//
// Who shows a certificate, or refuses one, says its time: a wrong clock is a
// common reason, and nobody can see it alone.
//
// A daemon that stops opens a hello stream and sends Goodbye instead; an anchor
// that has seen another daemon with the same identity sends Twin.
type helloMessage struct {
	Version     int    `json:"version"`
	Certificate []byte `json:"certificate,omitempty"`
	Time        int64  `json:"time,omitempty"`     // Unix seconds, by the sender's clock
	Instance    uint64 `json:"instance,omitempty"` // of the sender's daemon
	Refused     string `json:"refused,omitempty"`
	Notice      []byte `json:"notice,omitempty"` // with Refused: proof that the opener was removed
	Goodbye     bool   `json:"goodbye,omitempty"`
	Twin        string `json:"twin,omitempty"` // address of another daemon with the receiver's identity
}

// greet sees to it that the peer of a new connection is admitted, or gone.
// The side that dialled says hello, the other waits for it.
func (m *Mesh) greet(c network.Conn) {
	p := c.RemotePeer()
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.AdmitWithin)
	defer cancel()
	var err error
	if c.Stat().Direction == network.DirOutbound {
		if err = m.hello(ctx, c); err == nil {
			return
		}
		m.fail(p, err)
	} else if _, err = m.waitAdmitted(ctx, p); err == nil {
		return
	} else {
		// Closed at once, the connection would take the refusal with it. The
		// other side closes when it has read it.
		if !m.revoked(p) {
			<-ctx.Done()
		}
		m.pause(refusalLinger)
	}
	m.waitEnrolment(c)
	if _, ok := m.admitted(p); ok || m.ctx.Err() != nil || c.IsClosed() {
		return
	}
	m.metrics.hellos.WithLabelValues("closed").Inc()
	m.log.Debug("peer was not admitted", zap.Stringer("peer", p), zap.Stringer("address", c.RemoteMultiaddr()), zap.Error(err))
	_ = c.CloseWithError(network.ConnGated)
}

// hello shows our certificate to the peer of c and judges its own.
func (m *Mesh) hello(ctx context.Context, c network.Conn) error {
	_, err := m.exchange(ctx, c)
	return err
}

// exchange is hello; it also returns which instance of the peer's daemon is at
// the other end.
func (m *Mesh) exchange(ctx context.Context, c network.Conn) (instance uint64, err error) {
	defer func() { m.countHello(err) }()
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	s, err := m.openStream(ctx, c, api.ProtoHello)
	if err != nil {
		return 0, fmt.Errorf("open hello: %w", err)
	}
	defer resetUnlessClosed(s, &err)
	_ = s.SetDeadline(time.Now().Add(helloTimeout))

	mine := m.introduction()
	if err := writeFrame(s, maxHelloFrame, mine); err != nil {
		return 0, err
	}
	var reply helloMessage
	if err := readFrame(s, maxHelloFrame, &reply); err != nil {
		return 0, err
	}
	if reply.Refused != "" {
		m.hearFarewell(c.RemotePeer(), reply)
		return 0, m.refusedBy(c.RemotePeer(), reply)
	}
	member, err := m.verify(c.RemotePeer(), reply)
	if err != nil {
		_ = writeFrame(s, maxHelloFrame, m.refusalOf(err))
		_ = s.CloseWrite()
		return 0, err
	}
	if err := writeFrame(s, maxHelloFrame, helloMessage{Version: helloVersion}); err != nil {
		return 0, err
	}
	m.admit(c, member, reply.Certificate, mine.Certificate)
	m.noteInstance(c, reply.Instance)
	return reply.Instance, nil
}

// introduction is what this device says of itself.
func (m *Mesh) introduction() helloMessage {
	return helloMessage{
		Version: helloVersion, Certificate: m.cfg.Admission.Certificate(), Time: m.cfg.Now().Unix(), Instance: m.instance,
	}
}

// refusalOf tells the other side why its certificate is not accepted.
func (m *Mesh) refusalOf(err error) helloMessage {
	var judged *judgement
	if errors.As(err, &judged) {
		err = judged.err // it makes its own comparison of the clocks
	}
	return helloMessage{Version: helloVersion, Refused: clip(err.Error(), maxReason), Time: m.cfg.Now().Unix()}
}

// handleHello is the other side of hello.
func (m *Mesh) handleHello(s network.Stream) {
	err := m.answerHello(s)
	if err == nil {
		_ = s.Close()
		return
	}
	m.countHello(err)
	m.fail(s.Conn().RemotePeer(), err)
	m.log.Debug("hello failed", zap.Stringer("peer", s.Conn().RemotePeer()), zap.Error(err))
	_ = s.Close()
}

func (m *Mesh) answerHello(s network.Stream) error {
	_ = s.SetDeadline(time.Now().Add(helloTimeout))
	p := s.Conn().RemotePeer()
	var first helloMessage
	if err := readFrame(s, maxHelloFrame, &first); err != nil {
		return err
	}
	if first.Goodbye {
		m.update(p, func(r *record) { r.goodbye = true })
		return nil
	}
	if first.Twin != "" {
		m.hearTwin(p, first.Twin)
		return nil
	}
	member, err := m.verify(p, first)
	if err != nil {
		_ = writeFrame(s, maxHelloFrame, m.refusal(p, err))
		return err
	}
	mine := m.introduction()
	if err := writeFrame(s, maxHelloFrame, mine); err != nil {
		return err
	}
	var last helloMessage
	if err := readFrame(s, maxHelloFrame, &last); err != nil {
		return err
	}
	if last.Refused != "" {
		return m.refusedBy(p, last)
	}
	m.admit(s.Conn(), member, first.Certificate, mine.Certificate)
	m.noteInstance(s.Conn(), first.Instance)
	m.lookForTwins(p)
	m.countHello(nil)
	return nil
}

// judgement is why a certificate is not accepted, and what the clocks have to do
// with it as far as this side can tell.
type judgement struct {
	err  error // of the certificate alone
	full error
}

func (e *judgement) Error() string { return e.full.Error() }
func (e *judgement) Unwrap() error { return e.full }

// verify judges the certificate in a message of a peer that TLS has proved to
// be p.
func (m *Mesh) verify(p peer.ID, msg helloMessage) (api.Member, error) {
	member, err := m.judge(p, msg.Certificate)
	if err != nil {
		return api.Member{}, &judgement{err: err, full: m.explainRefusal(err, unixTime(msg.Time))}
	}
	return member, nil
}

func (m *Mesh) judge(p peer.ID, cert []byte) (api.Member, error) {
	id := api.NodeID(p.String())
	if m.cfg.Admission.Revoked(id) {
		return api.Member{}, api.Errorf(api.KindDenied, "%s was removed from the cluster", id)
	}
	if len(cert) == 0 {
		return api.Member{}, api.Errorf(api.KindDenied, "no membership certificate was shown")
	}
	member, err := m.cfg.Admission.Verify(id, cert)
	if err != nil {
		return api.Member{}, err
	}
	if member.ID != id {
		return api.Member{}, api.Errorf(api.KindDenied, "the certificate names %s, the connection is that of %s", member.ID, id)
	}
	return member, nil
}

// refusedError is the other side's refusal.
type refusedError struct {
	peer   peer.ID
	reason string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s refuses this device: %s", e.peer, e.reason)
}

func (m *Mesh) refusedBy(p peer.ID, refusal helloMessage) error {
	return m.explainRefusal(&refusedError{peer: p, reason: clip(refusal.Refused, maxReason)}, unixTime(refusal.Time))
}

func (m *Mesh) countHello(err error) {
	var refused *refusedError
	switch {
	case err == nil:
		m.metrics.hellos.WithLabelValues("admitted").Inc()
	case errors.As(err, &refused):
		m.metrics.hellos.WithLabelValues("refused_by_peer").Inc()
	case api.KindOf(err) == api.KindDenied:
		m.metrics.hellos.WithLabelValues("refused").Inc()
	default:
		m.metrics.hellos.WithLabelValues("failed").Inc()
	}
}

// refresh looks at every admitted peer: revoked ones are evicted, certificates
// are judged again, and hello is repeated when one of the two certificates was
// renewed or soon will have to be. No stream notices.
func (m *Mesh) refresh() {
	now := time.Now()
	for _, s := range m.members(m.cfg.Admission.Certificate()) {
		if m.cfg.Admission.Revoked(s.member.ID) {
			m.evict(s.id, ReasonRevoked)
			continue
		}
		expiring := now.After(s.member.NotAfter.Add(-renewAhead))
		if (s.stale || expiring) && now.Sub(s.hello) > m.refreshPause() {
			m.update(s.id, func(r *record) { r.hello = now })
			m.spawn(func() { m.rehello(s.id) })
			continue
		}
		if now.Sub(s.checked) > recheckEvery || now.After(s.member.NotAfter) {
			m.recheck(s)
		}
		m.lookForTwins(s.id)
	}
}

// refreshPause keeps a peer that does not answer from being asked all the time.
func (m *Mesh) refreshPause() time.Duration { return min(refreshPause, 3*m.cfg.RefreshEvery) }

func (m *Mesh) rehello(p peer.ID) {
	c := m.best(p)
	if c == nil {
		return
	}
	if err := m.hello(m.ctx, c); err != nil && m.ctx.Err() == nil {
		m.log.Info("could not refresh the admission of a peer", zap.Stringer("peer", p), zap.Error(err))
	}
}

// recheck judges the certificate again that a peer has shown. Before a member
// loses its connections over it, it is asked for the one that it has now: it may
// just have been renewed.
func (m *Mesh) recheck(s snapshot) {
	member, err := m.judge(s.id, s.cert)
	if err == nil {
		m.update(s.id, func(r *record) { r.checked, r.member = time.Now(), &member })
		return
	}
	m.update(s.id, func(r *record) { r.checked = time.Now() })
	m.spawn(func() {
		if c := m.best(s.id); c != nil && m.hello(m.ctx, c) == nil {
			return
		}
		if m.ctx.Err() != nil {
			return
		}
		m.log.Info("peer is no longer admitted", zap.Stringer("peer", s.id), zap.Error(err))
		m.evict(s.id, ReasonExpired)
	})
}

// goodbye tells every peer that this daemon stops, so that nobody has to find
// out by silence. It takes goodbyeWithin at most.
func (m *Mesh) goodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWithin)
	defer cancel()
	each(m.members(nil), parallelDials, func(s snapshot) {
		c := m.best(s.id)
		if c == nil {
			return
		}
		st, err := m.openStream(ctx, c, api.ProtoHello)
		if err != nil {
			return
		}
		_ = st.SetDeadline(time.Now().Add(goodbyeWithin))
		if writeFrame(st, maxHelloFrame, helloMessage{Version: helloVersion, Goodbye: true}) == nil {
			_ = st.CloseWrite()
			var b [1]byte
			_, _ = st.Read(b[:]) // the other side closes once it has taken note
		}
		_ = st.Reset()
	})
}

// pause waits, unless the mesh stops.
func (m *Mesh) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.ctx.Done():
	}
}

func resetUnlessClosed(s network.Stream, err *error) {
	if *err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
