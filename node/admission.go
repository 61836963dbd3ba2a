package node

import (
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// anchorAway is how long the anchors must have been silent for this node to be
// on an island.
const anchorAway = 2 * time.Minute

// admission decides who is a member, and says that this node is one. It
// implements p2p.Admission.
type admission struct {
	ca  *x509.Certificate // the founding one
	id  api.NodeID
	now func() time.Time

	revoked *revocations

	mu         sync.RWMutex
	anchor     bool // this node is one
	trust      identity.Trust
	cert       []byte
	member     api.Member
	renewAt    time.Time
	hurry      chan struct{} // closed when renewAt comes nearer
	anchorSeen time.Time
}

func newAdmission(ca *x509.Certificate, id api.NodeID, cert []byte, anchor bool, now func() time.Time) (*admission, error) {
	a := &admission{
		ca: ca, id: id, anchor: anchor, now: now, trust: identity.TrustIn(ca),
		hurry: make(chan struct{}), revoked: newRevocations(),
	}
	return a, a.replace(cert)
}

// replace makes another certificate this node's own.
func (a *admission) replace(cert []byte) error {
	leaf, err := identity.Leaf(cert)
	if err != nil {
		return err
	}
	// Judged at a moment of its own life: peers decide whether it holds now. A
	// device whose clock is wrong, or that was away for long, still starts, and
	// can renew it.
	member, err := identity.Verify(cert, a.ca, leaf.NotBefore, identity.VerifyOptions{Peer: a.id})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trust, err = a.trust.WithOwn(cert); err != nil {
		return err
	}
	a.cert, a.member = cert, member
	a.renewAt = identity.RenewAt(leaf.NotBefore, leaf.NotAfter, rand.Float64())
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

// renewal returns when to renew the certificate; sooner is closed when that
// comes nearer.
func (a *admission) renewal() (at time.Time, sooner <-chan struct{}) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.renewAt, a.hurry
}

// follow takes over what an anchor says of the cluster's authority. When another
// generation issues than the one of this node's certificate, the certificate is
// renewed early.
func (a *admission) follow(c api.Cluster, nodes int) error {
	// Announced generations are not pinned: they may yet be withdrawn.
	var lineage [][]byte
	for _, g := range c.Generations()[:c.IssuingAuthority()] {
		lineage = append(lineage, g.Certificate)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	trust, err := a.trust.With(lineage, c.OldestAuthority())
	if err != nil {
		return err
	}
	changed := trust.Generations() != a.trust.Generations()
	a.trust = trust
	if a.member.Authority >= c.IssuingAuthority() || !changed {
		return nil
	}
	if early := a.now().Add(identity.RenewEarly(nodes, rand.Float64())); early.Before(a.renewAt) {
		a.renewAt = early
		close(a.hurry)
		a.hurry = make(chan struct{})
	}
	return nil
}

// trusts returns whom this node believes.
func (a *admission) trusts() identity.Trust {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.trust
}

// Verify accepts members whose certificate holds. One that has ended is good
// for two things: on an island, where no anchor has been seen since before it
// ended, it goes on for the offline grace; and an anchor lets the node in, which
// was away itself, to renew it and for nothing else.
func (a *admission) Verify(peer api.NodeID, cert []byte) (api.Member, error) {
	if a.Revoked(peer) {
		return api.Member{}, api.Errorf(api.KindDenied, "the identity %s was revoked", peer)
	}
	now := a.now()
	a.mu.RLock()
	trust, seen, anchor := a.trust, a.anchorSeen, a.anchor
	a.mu.RUnlock()
	opts := identity.VerifyOptions{Peer: peer, Skew: identity.ClockSkew}
	m, ended := trust.Verify(cert, now, opts)
	if !errors.Is(ended, identity.ErrExpired) {
		return m, ended
	}
	opts.Grace = identity.OfflineGrace
	m, err := trust.Verify(cert, now, opts)
	switch {
	case err != nil:
		return api.Member{}, err
	case now.Sub(seen) > anchorAway && seen.Before(m.NotAfter.Add(identity.ClockSkew)):
		return m, nil
	case m.Has(api.RoleNode) && anchor:
		m.Lapsed = true
		return m, nil
	case !m.Has(api.RoleNode):
		return api.Member{}, api.Errorf(api.KindDenied, "the certificate of %s ended at %s", m.Operator, m.NotAfter.Format(time.RFC3339)).
			WithHint("log in again with a new token: cloudless login")
	}
	return api.Member{}, ended
}

// lapsed reports whether a member's certificate has ended.
func lapsed(m api.Member, now time.Time) bool {
	return !m.NotAfter.IsZero() && now.After(m.NotAfter.Add(identity.ClockSkew))
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

func (a *admission) isAnchor() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.anchor
}

// sawAnchor notes that an anchor answered just now.
func (a *admission) sawAnchor() { a.sawAnchorAt(a.now()) }

// sawAnchorAt notes when an anchor answered.
func (a *admission) sawAnchorAt(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.anchorSeen = at
}

// lastAnchor returns when an anchor answered last.
func (a *admission) lastAnchor() time.Time {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.anchorSeen
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
	if now, ok := d.mesh.Admitted(m.ID); ok {
		m = now // it may have shown a newer certificate since
	}
	if renewing || !d.office.IsLeader() && !m.Lapsed {
		return nil
	}
	if lapsed(m, d.admission.now()) {
		return api.Errorf(api.KindDenied, "the certificate of %s ended at %s", m.ID, m.NotAfter.Format(time.RFC3339)).
			WithHint("a daemon renews it by itself in a few seconds; a person logs in again")
	}
	return nil
}
