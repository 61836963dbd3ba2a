package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// MaxTTL is the longest life of a membership certificate. Short lives bound
	// the harm of a revocation that has not spread yet.
	MaxTTL = 24 * time.Hour
	// ClockSkew is how far apart two clocks may be. NTP keeps them within a
	// second; a device that lost it, or boots with the time of its last shutdown,
	// is minutes off until it is set. Against a life of 24 hours ten minutes are
	// nothing, and who is further off has days or years to be told about.
	ClockSkew = 10 * time.Minute
	// Backdate is how far before its issue a certificate becomes valid, so that
	// a device whose clock runs behind can use it at once.
	Backdate = ClockSkew
	// MaxAuthorities bounds the generations of a cluster's authority: each one's
	// certificate travels with those of the members.
	MaxAuthorities = 12

	caLife          = 10 * 365 * 24 * time.Hour
	clusterIDBytes  = 16
	serialBytes     = 16
	maxCertificate  = 8 << 10 // bytes of DER; an Ed25519 certificate has about 500
	maxSubjectName  = 128     // characters of a common name
	spiffeScheme    = "spiffe"
	spiffeNode      = "/node/"
	spiffeOperator  = "/operator/"
	maxOperatorName = 63
)

var (
	base32Lower  = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	operatorName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$`)
)

// Authority is the cluster's certificate authority: its generations, founding
// one first, each signed by the one before it, and the keys of those that this
// device holds. One of them issues. An Authority is immutable, and safe for
// concurrent use.
type Authority struct {
	lineage []*x509.Certificate
	keys    []ed25519.PrivateKey // of lineage; nil where the key was dropped
	issuer  int                  // index of the one that issues
}

// NewAuthority makes the authority of a new cluster. name is for people.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	template, err := caTemplate(name, clusterID(pub), now)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	cert, err := signCA(template, template, pub, key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &Authority{lineage: []*x509.Certificate{cert}, keys: []ed25519.PrivateKey{key}}, nil
}

func caTemplate(name, cluster string, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: clip(name, maxSubjectName), Organization: []string{cluster}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil
}

func signCA(template, parent *x509.Certificate, pub ed25519.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// ClusterID returns the ID that follows from the founding key. It stays the
// same whatever generation issues.
func (a *Authority) ClusterID() string { return ClusterID(a.lineage[0]) }

// Certificate returns the certificate of the founding generation, which tokens
// pin; treat it as read-only.
func (a *Authority) Certificate() *x509.Certificate { return a.lineage[0] }

// ClusterID returns the ID of the cluster whose founding authority holds ca:
// base32 of 16 bytes of the SHA-256 of its public key.
func ClusterID(ca *x509.Certificate) string {
	pub, _ := ca.PublicKey.(ed25519.PublicKey)
	return clusterID(pub)
}

func clusterID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return base32Lower.EncodeToString(sum[:clusterIDBytes])
}

// ParseCA reads the certificate (DER) of a founding authority that came from
// outside and makes sure that it is the one of the wanted cluster ("" accepts
// any).
func ParseCA(der []byte, cluster string) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, api.Errorf(api.KindInvalid, "the CA certificate has %d bytes, at most %d are allowed", len(der), maxCertificate)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "parse CA certificate: %w", err)
	}
	if _, ok := ca.PublicKey.(ed25519.PublicKey); !ok || !ca.IsCA {
		return nil, api.Errorf(api.KindInvalid, "the certificate is not that of a Cloudless authority")
	}
	if err := ca.CheckSignature(ca.SignatureAlgorithm, ca.RawTBSCertificate, ca.Signature); err != nil {
		return nil, api.Errorf(api.KindDenied, "the CA certificate is not signed by its own key: %w", err)
	}
	if got := ClusterID(ca); cluster != "" && got != cluster {
		return nil, api.Errorf(api.KindDenied, "the CA certificate is that of cluster %s, want %s", got, cluster).
			WithHint("somebody else may be answering at the anchor's address: create a new token")
	}
	return ca, nil
}

// Issue signs a membership certificate for the key that made the request csr
// (DER), and returns it with what it says. operator names the person, and is
// "" for a device. The requester proves possession of the key by the
// signature on the request; whether it may have these roles is the caller's
// decision. The certificate is followed by those of the authority's generations
// back to the second, as TLS has them, so that whoever knows the founding one
// can check it.
func (a *Authority) Issue(csr []byte, roles []api.Role, operator string, now time.Time, ttl time.Duration) (cert []byte, member api.Member, err error) {
	req, pub, err := parseCSR(csr)
	if err != nil {
		return nil, api.Member{}, err
	}
	if err := checkGrant(roles, operator, ttl); err != nil {
		return nil, api.Member{}, err
	}
	ca, key := a.lineage[a.issuer], a.keys[a.issuer]
	switch {
	case key == nil:
		return nil, api.Member{}, api.Errorf(api.KindUnavailable, "this anchor does not hold the key of authority %d", a.issuer+1).
			WithHint("it gets it from the leader in a moment; try again")
	case now.Add(ttl).After(ca.NotAfter):
		return nil, api.Member{}, api.Errorf(api.KindUnavailable, "the cluster's authority ends at %s", ca.NotAfter.Format(time.RFC3339)).
			WithHint("give it a successor: cloudless anchor rotate-ca")
	}
	template, err := a.memberTemplate(req, pub, roles, operator)
	if err != nil {
		return nil, api.Member{}, fmt.Errorf("issue certificate: %w", err)
	}
	template.NotBefore, template.NotAfter = now.Add(-Backdate), now.Add(ttl)
	leaf, err := x509.CreateCertificate(rand.Reader, template, ca, pub, key)
	if err != nil {
		return nil, api.Member{}, fmt.Errorf("issue certificate: %w", err)
	}
	cert = slices.Concat(leaf, a.chain())
	member, err = a.Trust().Verify(cert, now, VerifyOptions{Peer: NodeID(pub)})
	if err != nil {
		return nil, api.Member{}, fmt.Errorf("issue certificate: check the result: %w", err)
	}
	return cert, member, nil
}

func (a *Authority) memberTemplate(req *x509.CertificateRequest, pub ed25519.PublicKey, roles []api.Role, operator string) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	units := make([]string, len(roles))
	for i, r := range roles {
		units[i] = string(r)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			CommonName:         clip(req.Subject.CommonName, maxSubjectName),
			Organization:       []string{a.ClusterID()},
			OrganizationalUnit: units,
		},
		URIs:                  []*url.URL{spiffeID(a.ClusterID(), NodeID(pub), operator)},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, nil
}

// checkGrant refuses what a certificate must never say: daemons and people
// keep to their own roles.
func checkGrant(roles []api.Role, operator string, ttl time.Duration) error {
	allowed := []api.Role{api.RoleNode, api.RoleAnchor}
	if operator != "" {
		allowed = []api.Role{api.RoleOperator, api.RoleViewer}
		if len(operator) > maxOperatorName || !operatorName.MatchString(operator) {
			return api.Invalid("operator", "%q is not a name: use letters, digits, '.', '_' and '-', at most %d", operator, maxOperatorName)
		}
	}
	if len(roles) == 0 {
		return api.Invalid("roles", "a certificate needs at least one role")
	}
	for i, r := range roles {
		if !slices.Contains(allowed, r) || slices.Contains(roles[:i], r) {
			return api.Invalid("roles", "a certificate of this kind cannot hold %v", roles)
		}
	}
	if ttl <= 0 || ttl > MaxTTL {
		return api.Invalid("ttl", "%v is not between 0 and %v", ttl, MaxTTL)
	}
	return nil
}

// NewCSR makes a certificate request (DER) for a device's key; name is the one
// that its owner wishes for.
func NewCSR(key ed25519.PrivateKey, name string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: clip(name, maxSubjectName)},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// CSRNode returns the node whose key made the request, after checking its
// signature: an anchor compares it with the PeerID that the connection proved.
func CSRNode(csr []byte) (api.NodeID, error) {
	_, pub, err := parseCSR(csr)
	if err != nil {
		return "", err
	}
	return NodeID(pub), nil
}

func parseCSR(csr []byte) (*x509.CertificateRequest, ed25519.PublicKey, error) {
	if len(csr) > maxCertificate {
		return nil, nil, api.Errorf(api.KindInvalid, "the certificate request has %d bytes, at most %d are allowed", len(csr), maxCertificate)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, nil, api.Errorf(api.KindInvalid, "parse certificate request: %w", err)
	}
	pub, ok := req.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, nil, api.Errorf(api.KindInvalid, "the certificate request is not for an Ed25519 key")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, nil, api.Errorf(api.KindDenied, "the certificate request is not signed by its key: %w", err)
	}
	return req, pub, nil
}

func spiffeID(cluster string, id api.NodeID, operator string) *url.URL {
	path := spiffeNode + string(id)
	if operator != "" {
		path = spiffeOperator + operator
	}
	return &url.URL{Scheme: spiffeScheme, Host: cluster, Path: path}
}

// newSerial returns a random positive serial: serials are never reused and
// tell nothing about how many were issued.
func newSerial() (*big.Int, error) {
	raw := make([]byte, serialBytes)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	raw[0] &= 0x7f // positive in DER
	raw[serialBytes-1] |= 1
	return new(big.Int).SetBytes(raw), nil
}

func serialText(serial *big.Int) string { return hex.EncodeToString(serial.Bytes()) }

// clip shortens s to at most n bytes of valid UTF-8 without control characters.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
