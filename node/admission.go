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
	ca *x509.Certificate

	mu         sync.RWMutex
	cert       []byte
	member     api.Member
	issued     time.Time
	renewAt    time.Time
	revoked    map[api.NodeID]bool
	anchorSeen time.Time
}

func newAdmission(ca *x509.Certificate, cert []byte) (*admission, error) {
	a := &admission{ca: ca, revoked: make(map[api.NodeID]bool)}
	return a, a.replace(cert)
}

// replace makes another certificate this node's own.
func (a *admission) replace(der []byte) error {
	// An expired one is still presented: peers decide, and it can be renewed.
	member, err := identity.Verify(der, a.ca, time.Now(), identity.VerifyOptions{Skew: clockSkew, Grace: 100 * 365 * 24 * time.Hour})
	if err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cert, a.member, a.issued = der, member, parsed.NotBefore
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
// went away.
func (a *admission) Verify(peer api.NodeID, cert []byte) (api.Member, error) {
	if a.Revoked(peer) {
		return api.Member{}, api.Errorf(api.KindDenied, "the identity %s was revoked", peer)
	}
	now := time.Now()
	opts := identity.VerifyOptions{Peer: peer, Skew: clockSkew}
	a.mu.RLock()
	if now.Sub(a.anchorSeen) > anchorAway {
		opts.Grace = offlineGrace
	}
	a.mu.RUnlock()
	return identity.Verify(cert, a.ca, now, opts)
}

// Revoked reports whether an identity is dead.
func (a *admission) Revoked(peer api.NodeID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.revoked[peer]
}

// learn takes the revocations of a view in and returns those that are new.
func (a *admission) learn(revocations []api.Revocation) (fresh []api.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range revocations {
		if id := api.NodeID(r.ID); !a.revoked[id] {
			a.revoked[id] = true
			fresh = append(fresh, id)
		}
	}
	return fresh
}

// sawAnchor notes that an anchor answered just now.
func (a *admission) sawAnchor() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.anchorSeen = time.Now()
}
