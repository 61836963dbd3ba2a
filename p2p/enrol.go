package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const enrolTimeout = 30 * time.Second

// EnrolRequest is a joiner's wish to become a member.
type EnrolRequest struct {
	Cluster string `json:"cluster"`
	TokenID string `json:"token_id"`
	Secret  []byte `json:"secret"`
	CSR     []byte `json:"csr"` // DER
	Name    string `json:"name"`
	// Time is the joiner's clock, Unix seconds. A certificate is no use to a device
	// that is days behind or ahead, so it is told before the token is used up.
	Time int64 `json:"time,omitempty"`

	// Set by the receiving side: who asks, as TLS has proved, and from where.
	// The key in CSR must be that of Peer.
	Peer    api.NodeID `json:"-"`
	Address string     `json:"-"`
}

// EnrolReply makes the joiner a member.
type EnrolReply struct {
	Certificate []byte    `json:"certificate"` // DER
	CA          []byte    `json:"ca"`          // DER
	ClusterName string    `json:"cluster_name"`
	Anchors     []Contact `json:"anchors"`
}

// enrolAnswer is the frame on the wire: a reply or a refusal.
type enrolAnswer struct {
	Reply   *EnrolReply `json:"reply,omitempty"`
	Kind    api.Kind    `json:"kind,omitempty"`
	Message string      `json:"message,omitempty"`
	Hint    string      `json:"hint,omitempty"`
	// Again says that nothing was decided, and that the joiner should ask again.
	Again bool `json:"again,omitempty"`
}

// InvitedFunc reports whether a request shows the secret of a token that holds,
// as far as this anchor knows. It is asked of everybody, so it must be cheap.
type InvitedFunc func(EnrolRequest) bool

// EnrolFunc decides on a request to enrol.
type EnrolFunc func(context.Context, EnrolRequest) (EnrolReply, error)

// enrolServer serves strangers, so it counts.
type enrolServer struct {
	m      *Mesh
	limits *enrolLimits

	mu   sync.Mutex
	open map[string]int // streams by connection
}

func newEnrolServer(m *Mesh) *enrolServer {
	return &enrolServer{m: m, limits: newEnrolLimits(), open: make(map[string]int)}
}

// ServeEnrol answers requests to enrol. It is the only protocol of Cloudless,
// beside hello, that strangers reach. However many of them ask, who is invited
// is heard; nil means that nobody is known to be. Errors of kind other than
// KindInternal are told to the joiner.
func (m *Mesh) ServeEnrol(invited InvitedFunc, decide EnrolFunc) {
	m.claim(api.ProtoEnrol)
	m.host.SetStreamHandler(api.ProtoEnrol, func(s network.Stream) {
		conn := s.Conn().ID()
		m.enrol.begin(conn)
		defer m.enrol.end(conn)
		if err := m.enrol.serve(s, invited, decide); err != nil {
			m.log.Info("enrolment failed", zap.Stringer("peer", s.Conn().RemotePeer()), zap.Error(err))
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

// StopEnrol ends ServeEnrol.
func (m *Mesh) StopEnrol() {
	m.host.RemoveStreamHandler(api.ProtoEnrol)
	m.release(api.ProtoEnrol)
}

func (e *enrolServer) serve(s network.Stream, invited InvitedFunc, decide EnrolFunc) error {
	p := s.Conn().RemotePeer()
	_ = s.SetDeadline(time.Now().Add(enrolTimeout))
	ctx, cancel := context.WithTimeout(e.m.ctx, enrolTimeout)
	defer cancel()
	if !e.limits.peer(p) {
		return e.turnAway(s)
	}
	_ = s.SetReadDeadline(time.Now().Add(2 * e.m.cfg.AdmitWithin)) // to ask takes no time, to decide may
	var req EnrolRequest
	if err := readFrame(s, maxEnrolRequest, &req); err != nil {
		e.m.metrics.enrolments.WithLabelValues("malformed").Inc()
		return err
	}
	req.Peer, req.Address = api.NodeID(p.String()), s.Conn().RemoteMultiaddr().String()
	if !e.hears(req, s.Conn().RemoteMultiaddr(), invited) {
		return e.turnAway(s)
	}
	var reply EnrolReply
	err := checkClock(unixTime(req.Time), e.m.cfg.Now())
	if err == nil {
		reply, err = decide(ctx, req)
	}
	if err != nil {
		e.m.metrics.enrolments.WithLabelValues(string(api.KindOf(err))).Inc()
		e.m.log.Info("enrolment refused", zap.Stringer("peer", p), zap.String("address", req.Address), zap.Error(err))
		return writeFrame(s, maxEnrolFrame, refusal(err))
	}
	e.m.metrics.enrolments.WithLabelValues("enrolled").Inc()
	return writeFrame(s, maxEnrolFrame, enrolAnswer{Reply: &reply})
}

// hears reports whether there is time for a request that was read. Only who
// shows a token that holds takes some from others with that token; everybody
// else, who may have got it wrong or may be guessing, takes it from each other.
func (e *enrolServer) hears(req EnrolRequest, from multiaddr.Multiaddr, invited InvitedFunc) bool {
	if invited != nil && invited(req) {
		return e.limits.token(req.TokenID)
	}
	return e.limits.uninvited(from)
}

// turnAway answers an attempt too many.
func (e *enrolServer) turnAway(s network.Stream) error {
	e.m.metrics.enrolments.WithLabelValues("limited").Inc()
	return writeFrame(s, maxEnrolFrame, enrolAnswer{
		Kind: api.KindExhausted, Message: "too many attempts to enrol", Hint: "wait a minute, then try again", Again: true,
	})
}

// refusal is what a stranger learns of an error.
func refusal(err error) enrolAnswer {
	kind := api.KindOf(err)
	if kind == api.KindInternal {
		return enrolAnswer{Kind: kind, Message: "the anchor could not process the request", Hint: "its log says why"}
	}
	a := enrolAnswer{Kind: kind, Message: clip(err.Error(), maxReason)}
	if e := asError(err); e != nil {
		a.Hint = clip(e.Hint, maxReason)
	}
	return a
}

func (e *enrolServer) begin(conn string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open[conn]++
}

func (e *enrolServer) end(conn string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open[conn]--; e.open[conn] <= 0 {
		delete(e.open, conn)
	}
}

func (e *enrolServer) busy(conn string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open[conn] > 0
}

// waitEnrolment returns when no enrolment is open on c: its peer must not be
// disconnected in the middle.
func (m *Mesh) waitEnrolment(c network.Conn) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for until := time.Now().Add(enrolTimeout); m.enrol.busy(c.ID()) && time.Now().Before(until); {
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
	}
}
