package p2p

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

// PeerEventKind says what became of a peer.
type PeerEventKind string

// The kinds of PeerEvent.
const (
	PeerAdmitted PeerEventKind = "admitted" // connected, and its certificate is good
	PeerGone     PeerEventKind = "gone"     // its last connection ended, or it was evicted
)

// The reasons of a PeerGone event.
const (
	ReasonLost    = "connection lost" // ended without a word: crash, power, network
	ReasonGoodbye = "goodbye"         // its daemon said that it stops
	ReasonEvicted = "evicted"
	ReasonRevoked = "revoked"
	ReasonExpired = "certificate no longer accepted"
)

// PeerEvent is evidence for liveness: what the transport saw of a peer.
type PeerEvent struct {
	ID     api.NodeID
	Kind   PeerEventKind
	Member api.Member
	Reason string // of PeerGone
	At     time.Time
}

const eventBuffer = 256

var errNotConnected = errors.New("peer is not connected")

// record is what is known of one connected peer.
type record struct {
	member  *api.Member   // nil until admitted
	cert    []byte        // that the peer showed
	shown   []byte        // ours that it accepted
	since   time.Time     // admitted at
	checked time.Time     // the certificate was last judged at
	hello   time.Time     // the last refresh was tried at
	goodbye bool          // it announced that it stops
	err     error         // why the last hello failed
	changed chan struct{} // closed when member or err changes
	rtt     time.Duration // smoothed; 0 before the first probe

	instances map[network.Conn]uint64 // of the peer's daemon, as it said
	twins     time.Time               // it was last asked whether there are two
}

// admissions are the records of all connected peers.
type admissions struct {
	mu      sync.Mutex
	records map[peer.ID]*record
	failed  map[peer.ID]failure // of peers that may be disconnected already
	events  chan PeerEvent
}

// failure is why a hello failed. It outlives the connection for a moment: the
// one who dialled wants to know why there is none.
type failure struct {
	err error
	at  time.Time
}

const (
	rememberFailure = 2 * time.Second
	maxFailures     = 1024
)

func newAdmissions() *admissions {
	return &admissions{
		records: make(map[peer.ID]*record), failed: make(map[peer.ID]failure),
		events: make(chan PeerEvent, eventBuffer),
	}
}

// absence returns why p has no record. The caller holds mu.
func (a *admissions) absence(p peer.ID) error {
	if f, ok := a.failed[p]; ok && time.Since(f.at) < rememberFailure {
		return f.err
	}
	return errNotConnected
}

// get returns the record of p, and makes one. The caller holds mu.
func (a *admissions) get(p peer.ID) *record {
	r := a.records[p]
	if r == nil {
		r = &record{changed: make(chan struct{})}
		a.records[p] = r
	}
	return r
}

func (r *record) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// emit never blocks: a reader that lags behind loses the newest evidence, and
// finds the truth in Peers.
func (a *admissions) emit(e PeerEvent) {
	select {
	case a.events <- e:
	default:
	}
}

// Admitted returns what p's certificate says, if p is connected and admitted.
func (m *Mesh) Admitted(id api.NodeID) (api.Member, bool) {
	p, err := peer.Decode(string(id))
	if err != nil {
		return api.Member{}, false
	}
	return m.admitted(p)
}

func (m *Mesh) admitted(p peer.ID) (api.Member, bool) {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	if r := m.adm.records[p]; r != nil && r.member != nil {
		return *r.member, true
	}
	return api.Member{}, false
}

// Events returns the evidence on peers. It has one reader; when that one lags
// behind, events are lost.
func (m *Mesh) Events() <-chan PeerEvent { return m.adm.events }

// waitAdmitted returns when p is admitted, when its hello failed, or when ctx
// ends.
func (m *Mesh) waitAdmitted(ctx context.Context, p peer.ID) (api.Member, error) {
	for {
		m.adm.mu.Lock()
		r := m.adm.records[p]
		if r == nil {
			err := m.adm.absence(p)
			m.adm.mu.Unlock()
			return api.Member{}, err
		}
		member, err, changed := r.member, r.err, r.changed
		m.adm.mu.Unlock()
		if member != nil {
			return *member, nil
		}
		if err != nil {
			return api.Member{}, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.Member{}, context.Cause(ctx)
		}
	}
}

// track makes sure that a connected peer has a record.
func (m *Mesh) track(p peer.ID) {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	m.adm.get(p).err = nil
}

// admit records the outcome of a hello over c. shown is our certificate that
// the peer has now.
func (m *Mesh) admit(c network.Conn, member api.Member, cert, shown []byte) {
	p, now := c.RemotePeer(), time.Now()
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	if c.IsClosed() {
		return // its record may be gone already, and would then stay forever
	}
	r := m.adm.get(p)
	first := r.member == nil
	r.member, r.cert, r.shown, r.checked, r.err, r.goodbye = &member, cert, shown, now, nil, false
	if first {
		r.since = now
		m.adm.emit(PeerEvent{ID: member.ID, Kind: PeerAdmitted, Member: member, At: now})
		m.cfg.Admitted(member)
	}
	r.notify()
	delete(m.adm.failed, p)
	m.host.ConnManager().Protect(p, "member")
}

// fail records why a hello failed, so that nobody waits for it any longer. It
// takes nothing from a peer that is admitted.
func (m *Mesh) fail(p peer.ID, err error) {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	r := m.adm.records[p]
	if r != nil && r.member != nil {
		return
	}
	if len(m.adm.failed) >= maxFailures {
		clear(m.adm.failed)
	}
	if f, ok := m.adm.failed[p]; ok && denied(f.err) && !denied(err) && time.Since(f.at) < rememberFailure {
		err = f.err // a refusal says more than the reset that follows it
	}
	m.adm.failed[p] = failure{err: err, at: time.Now()}
	if r != nil {
		r.err = err
		r.notify()
	}
}

func denied(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused) || api.KindOf(err) == api.KindDenied
}

// forget drops the record of a peer that is no longer connected.
func (m *Mesh) forget(p peer.ID) {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	// Looked at under the lock: a hello on a newer connection cannot have
	// admitted the peer while there is none.
	if len(m.host.Network().ConnsToPeer(p)) > 0 {
		return
	}
	r := m.adm.records[p]
	if r == nil {
		return
	}
	delete(m.adm.records, p)
	if r.member != nil {
		reason := ReasonLost
		if r.goodbye {
			reason = ReasonGoodbye
		}
		m.adm.emit(PeerEvent{ID: r.member.ID, Kind: PeerGone, Member: *r.member, Reason: reason, At: time.Now()})
	}
	close(r.changed)
	m.host.ConnManager().Unprotect(p, "member")
}

// Evict ends the admission of a member and closes its connections. It can come
// back with a certificate that Admission accepts.
func (m *Mesh) Evict(id api.NodeID) {
	if p, err := peer.Decode(string(id)); err == nil {
		m.evict(p, ReasonEvicted)
	}
}

func (m *Mesh) evict(p peer.ID, reason string) {
	m.adm.mu.Lock()
	if r := m.adm.records[p]; r != nil {
		if r.member != nil {
			m.adm.emit(PeerEvent{ID: r.member.ID, Kind: PeerGone, Member: *r.member, Reason: reason, At: time.Now()})
		}
		r.member, r.cert, r.err = nil, nil, errors.New(reason)
		r.notify()
	}
	m.adm.mu.Unlock()
	m.host.ConnManager().Unprotect(p, "member")
	_ = m.host.Network().ClosePeer(p)
}

// snapshot is one admitted peer at a moment.
type snapshot struct {
	id      peer.ID
	member  api.Member
	cert    []byte
	stale   bool // the peer has not seen our present certificate
	since   time.Time
	checked time.Time
	hello   time.Time
	rtt     time.Duration
}

// members returns all admitted peers. mine is our present certificate.
func (m *Mesh) members(mine []byte) []snapshot {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	out := make([]snapshot, 0, len(m.adm.records))
	for p, r := range m.adm.records {
		if r.member == nil {
			continue
		}
		out = append(out, snapshot{
			id: p, member: *r.member, cert: r.cert, stale: !bytes.Equal(r.shown, mine),
			since: r.since, checked: r.checked, hello: r.hello, rtt: r.rtt,
		})
	}
	return out
}

// update changes the record of an admitted peer.
func (m *Mesh) update(p peer.ID, change func(*record)) {
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	if r := m.adm.records[p]; r != nil && r.member != nil {
		change(r)
	}
}
