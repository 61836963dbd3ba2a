package identity

import (
	"bytes"
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
	ErrRetired      = errors.New("certificate of a retired authority")
	ErrExpired      = errors.New("certificate expired")
	ErrNotYetValid  = errors.New("certificate not yet valid")
)

// VerifyOptions widens or narrows what Verify accepts.
type VerifyOptions struct {
	Peer  api.NodeID    // the peer that presented the certificate; "" checks no peer
	Skew  time.Duration // tolerated difference of the clocks, both ways; default 0
	Grace time.Duration // accept this long after the end: the offline grace of an island; default 0
}

// Verify checks a membership certificate for somebody who knows no more of the
// cluster than its founding authority. It does not know revocations.
func Verify(cert []byte, founding *x509.Certificate, now time.Time, opts VerifyOptions) (api.Member, error) {
	return TrustIn(founding).Verify(cert, now, opts)
}

// Leaf returns the certificate of the member itself, without those of the
// authorities that follow it. Nothing is checked.
func Leaf(cert []byte) (*x509.Certificate, error) {
	certs, err := parseChain(cert)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// TLSChain splits a membership certificate into what TLS sends: the member's
// own, and those of the authorities back to the founding one.
func TLSChain(cert []byte, founding *x509.Certificate) ([][]byte, error) {
	certs, err := parseChain(cert)
	if err != nil {
		return nil, err
	}
	chain := make([][]byte, 0, len(certs)+1)
	for _, c := range certs {
		chain = append(chain, c.Raw)
	}
	return append(chain, founding.Raw), nil
}

// FromTLS makes a membership certificate of what TLS received.
func FromTLS(chain []*x509.Certificate) []byte {
	var cert []byte
	for i, c := range chain {
		if i > 0 && bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil {
			break // the founding authority, which the other end knows
		}
		cert = append(cert, c.Raw...)
	}
	return cert
}

// parseChain reads a membership certificate and those that follow it.
func parseChain(cert []byte) ([]*x509.Certificate, error) {
	if len(cert) == 0 || len(cert) > maxCertificate {
		return nil, api.Errorf(api.KindDenied, "%w: it has %d bytes", ErrMalformed, len(cert))
	}
	certs, err := x509.ParseCertificates(cert)
	if err != nil {
		return nil, api.Errorf(api.KindDenied, "%w: %v", ErrMalformed, err)
	}
	if len(certs) > MaxAuthorities {
		return nil, api.Errorf(api.KindDenied, "%w: %d authorities are too many", ErrMalformed, len(certs))
	}
	return certs, nil
}

func checkValidity(cert *x509.Certificate, now time.Time, opts VerifyOptions) error {
	if now.Add(opts.Skew).Before(cert.NotBefore) {
		return api.Errorf(api.KindDenied, "%w: it starts at %s, the clock here says %s", ErrNotYetValid,
			cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("one of the two clocks is wrong: check the time on both devices, and set it: timedatectl set-ntp true")
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
