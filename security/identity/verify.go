package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Why a certificate is not accepted. Verify returns *api.Error values that
// wrap exactly one of them.
var (
	ErrMalformed    = errors.New("malformed certificate")
	ErrOtherCluster = errors.New("certificate of another cluster")
	ErrOtherPeer    = errors.New("certificate of another peer")
	ErrExpired      = errors.New("certificate expired")
	ErrNotYetValid  = errors.New("certificate not yet valid")
)

// VerifyOptions widens or narrows what Verify accepts.
type VerifyOptions struct {
	Peer  api.NodeID    // the peer that presented the certificate; "" checks no peer
	Skew  time.Duration // tolerated difference of the clocks, both ways; default 0
	Grace time.Duration // accept this long after the end: the offline grace of an island; default 0
}

// Verify checks a membership certificate (DER) against the cluster's authority
// and returns what it says. It does not know revocations.
func Verify(der []byte, ca *x509.Certificate, now time.Time, opts VerifyOptions) (api.Member, error) {
	if len(der) == 0 || len(der) > maxCertificate {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: it has %d bytes", ErrMalformed, len(der))
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: %v", ErrMalformed, err)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: not signed by the authority of cluster %s", ErrOtherCluster, ClusterID(ca)).
			WithHint("it was issued by another cluster, or before this cluster was created anew: join again with a new token")
	}
	member, err := readMember(cert, ClusterID(ca))
	if err != nil {
		return api.Member{}, err
	}
	if opts.Peer != "" && member.ID != opts.Peer {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: it names %s, presented by %s", ErrOtherPeer, member.ID, opts.Peer)
	}
	if err := checkValidity(cert, now, opts); err != nil {
		return api.Member{}, err
	}
	return member, nil
}

func checkValidity(cert *x509.Certificate, now time.Time, opts VerifyOptions) error {
	if now.Add(opts.Skew).Before(cert.NotBefore) {
		return api.Errorf(api.KindDenied, "%w: it starts at %s, the clock here says %s", ErrNotYetValid,
			cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("one of the two clocks is wrong: check the time on both devices")
	}
	if now.After(cert.NotAfter.Add(opts.Skew).Add(opts.Grace)) {
		return api.Errorf(api.KindDenied, "%w: it ended at %s, the clock here says %s", ErrExpired,
			cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("it is renewed by itself once an anchor is in reach; check that, and the time on both devices")
	}
	return nil
}

// readMember takes the identity out of a certificate whose signature is known
// to be the authority's. The authority writes exactly one form; anything else
// is refused.
func readMember(cert *x509.Certificate, cluster string) (api.Member, error) {
	malformed := func(why string) (api.Member, error) {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: %s", ErrMalformed, why)
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || cert.IsCA {
		return malformed("not an Ed25519 member's")
	}
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != spiffeScheme || cert.URIs[0].Host != cluster {
		return malformed("no SPIFFE name of this cluster")
	}
	m := api.Member{ID: NodeID(pub), Cluster: cluster, Serial: serialText(cert.SerialNumber), NotAfter: cert.NotAfter}
	path := cert.URIs[0].Path
	switch {
	case strings.HasPrefix(path, spiffeNode):
		if named := api.NodeID(strings.TrimPrefix(path, spiffeNode)); named != m.ID {
			return api.Member{}, api.Errorf(api.KindDenied, "%w: it names %s, its key is that of %s", ErrOtherPeer, named, m.ID)
		}
	case strings.HasPrefix(path, spiffeOperator):
		m.Operator = strings.TrimPrefix(path, spiffeOperator)
	default:
		return malformed("neither a node's nor an operator's name")
	}
	for _, unit := range cert.Subject.OrganizationalUnit {
		m.Roles = append(m.Roles, api.Role(unit))
	}
	if err := checkGrant(m.Roles, m.Operator, MaxTTL); err != nil {
		return malformed(err.Error())
	}
	return m, nil
}

// RenewAt returns when to renew a certificate that was issued and ends at the
// given times: between 50 and 80 % of its life, chosen by jitter in [0,1), so
// that a cluster that was started at once does not renew at once.
func RenewAt(issued, notAfter time.Time, jitter float64) time.Time {
	life := notAfter.Sub(issued)
	return issued.Add(life/2 + time.Duration(jitter*0.3*float64(life)))
}
