package node

import (
	"crypto/x509"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// The tolerances of admission.
const (
	// clockSkew is how far apart two clocks may be.
	clockSkew = 5 * time.Minute
	// offlineGrace is how long a certificate is accepted after its end while no
	// anchor can be reached to renew it.
	offlineGrace = 14 * 24 * time.Hour
	// anchorAway is how long the anchors must have been silent for that.
	anchorAway = 2 * time.Minute
)

// admission decides who is a member, and says that this node is one. It
// implements p2p.Admission.
type admission struct {
	ca      *x509.Certificate
	id      api.NodeID
	revoked *revocations

	mu         sync.RWMutex
	anchor     bool // this node is one
	cert       []byte
	member     api.Member
	renewAt    time.Time
	anchorSeen time.Time
}

func newAdmission(ca *x509.Certificate, id api.NodeID, cert []byte, anchor bool) (*admission, error) {
	a := &admission{ca: ca, id: id, anchor: anchor, revoked: newRevocations()}
	return a, a.replace(cert)
}

// replace makes another certificate this node's own.
func (a *admission) replace(der []byte) error {
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	// Judged at a moment of its own life: peers decide whether it holds now. A
	// device whose clock is wrong, or that was away for long, still starts, and
	// can renew it.
	member, err := identity.Verify(der, a.ca, parsed.NotBefore, identity.VerifyOptions{Peer: a.id})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cert, a.member = der, member
	a.renewAt = identity.RenewAt(parsed.NotBefore, parsed.NotAfter, rand.Float64())
	return nil
}

// Certificate returns this node's own.
func (a *admission) Certificate() []byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.cert
}

// self returns what the certificate says of this node.
func (a *admission) self() api.Member {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.member
}

// renewal returns when to renew the certificate.
func (a *admission) renewal() time.Time {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.renewAt
}

// Verify accepts members whose certificate holds, or held until the anchors
// went away. An anchor also lets nodes in that were away themselves for longer
// than their certificate lives: all that they can do here is to renew it.
func (a *admission) Verify(peer api.NodeID, cert []byte) (api.Member, error) {
	if a.Revoked(peer) {
		return api.Member{}, api.Errorf(api.KindDenied, "the identity %s was revoked", peer)
	}
	now := time.Now()
	a.mu.RLock()
	island, anchor := now.Sub(a.anchorSeen) > anchorAway, a.anchor
	a.mu.RUnlock()
	opts := identity.VerifyOptions{Peer: peer, Skew: clockSkew}
	if island || anchor {
		opts.Grace = offlineGrace
	}
	m, err := identity.Verify(cert, a.ca, now, opts)
	if err == nil && !island && lapsed(m, now) && !m.Has(api.RoleNode) {
		return api.Member{}, api.Errorf(api.KindDenied, "the certificate of %s ended at %s", m.Operator, m.NotAfter.Format(time.RFC3339)).
			WithHint("log in again with a new token: cloudless login")
	}
	return m, err
}

// lapsed reports whether a member's certificate has ended.
func lapsed(m api.Member, now time.Time) bool {
	return !m.NotAfter.IsZero() && now.After(m.NotAfter.Add(clockSkew))
}

// Revoked reports whether an identity is dead.
func (a *admission) Revoked(peer api.NodeID) bool {
	_, dead := a.revoked.get(peer)
	return dead
}

// setAnchor notes whether this node is an anchor.
func (a *admission) setAnchor(is bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.anchor = is
}

// sawAnchor notes that an anchor answered just now.
func (a *admission) sawAnchor() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.anchorSeen = time.Now()
}

// standing says whether a member that is connected may still call. Connections
// outlive revocations, and an anchor lets nodes in whose certificate has ended
// so that they renew it.
func (d *daemon) standing(m api.Member, renewing bool) error {
	if m.ID == d.self {
		return nil
	}
	if d.admission.Revoked(m.ID) {
		return api.Errorf(api.KindDenied, "the identity %s was revoked", m.ID)
	}
	if renewing || !d.office.IsLeader() {
		return nil
	}
	if now, ok := d.mesh.Admitted(m.ID); ok {
		m = now // it may have shown a newer certificate since
	}
	if lapsed(m, time.Now()) {
		return api.Errorf(api.KindDenied, "the certificate of %s ended at %s", m.ID, m.NotAfter.Format(time.RFC3339)).
			WithHint("a daemon renews it by itself in a few seconds; a person logs in again")
	}
	return nil
}
