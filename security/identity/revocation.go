package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// MaxRevocationReason is how many bytes a reason may have: revocations are
	// kept for good and passed on by every member.
	MaxRevocationReason = 256

	revocationContext = "cloudless revocation 1"
)

// Revoke signs the end of an identity. Whoever trusts the authority can then be
// convinced of it by anybody, and by nobody of one that was never decided.
func (a *Authority) Revoke(r api.Revocation) (api.Revocation, error) {
	if len(r.Reason) > MaxRevocationReason {
		return api.Revocation{}, api.Invalid("reason", "it has %d bytes, at most %d are allowed", len(r.Reason), MaxRevocationReason)
	}
	key := a.keys[a.issuer]
	if key == nil {
		return api.Revocation{}, api.Errorf(api.KindUnavailable, "this anchor does not hold the key of authority %d", a.issuer+1)
	}
	r.At = r.At.UTC().Round(0) // as it comes back from the wire
	r.Signature = ed25519.Sign(key, revocationText(a.ClusterID(), r))
	return r, nil
}

// VerifyRevocation checks that a cluster's authority signed a revocation, for
// somebody who knows no more than the founding one.
func VerifyRevocation(r api.Revocation, founding *x509.Certificate) error {
	return TrustIn(founding).VerifyRevocation(r)
}

func verifyRevocation(r api.Revocation, ca *x509.Certificate, cluster string) error {
	pub, ok := ca.PublicKey.(ed25519.PublicKey)
	// What is signed counts nanoseconds in 64 bits, and a time 584 years away has
	// the same.
	ok = ok && time.Unix(0, r.At.UnixNano()).Equal(r.At)
	if !ok || len(r.Reason) > MaxRevocationReason || !ed25519.Verify(pub, revocationText(cluster, r), r.Signature) {
		return api.Errorf(api.KindDenied, "the revocation of %s is not signed by the authority of cluster %s", clip(r.ID, maxSubjectName), cluster)
	}
	return nil
}

// revocationText is what is signed: no two revocations have the same.
func revocationText(cluster string, r api.Revocation) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%q\n%d\n%s", revocationContext, cluster, r.ID, r.At.UnixNano(), r.Reason)
}
