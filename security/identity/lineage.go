package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Generations returns how many the authority has; the founding one is the first.
func (a *Authority) Generations() int { return len(a.lineage) }

// Lineage returns the certificates (DER) of all generations.
func (a *Authority) Lineage() [][]byte { return rawOf(a.lineage) }

// Issuer returns the generation that issues.
func (a *Authority) Issuer() int { return a.issuer + 1 }

// Holds returns the newest generation whose key this device has, 0 for none.
func (a *Authority) Holds() int {
	held := len(a.keys)
	for held > 0 && a.keys[held-1] == nil {
		held--
	}
	return held
}

// Trust returns the authority as its members know it, with every generation
// counting.
func (a *Authority) Trust() Trust { return Trust{lineage: a.lineage, oldest: 1} }

// Succeed returns the authority with one generation more, which does not issue
// yet. Its certificate is signed by the generation before it: that is how
// whoever knows an earlier one comes to believe it.
func (a *Authority) Succeed(now time.Time) (*Authority, error) {
	last := len(a.lineage) - 1
	switch {
	case last+1 >= MaxAuthorities:
		return nil, api.Errorf(api.KindExhausted, "the cluster has had %d authorities, which is the most there can be", MaxAuthorities)
	case a.keys[last] == nil:
		return nil, api.Errorf(api.KindUnavailable, "this anchor does not hold the key of authority %d", last+1)
	}
	parent := a.lineage[last]
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the next authority: %w", err)
	}
	name := fmt.Sprintf("%s %d", a.lineage[0].Subject.CommonName, last+2)
	template, err := caTemplate(name, a.ClusterID(), now)
	if err != nil {
		return nil, fmt.Errorf("make the next authority: %w", err)
	}
	cert, err := signCA(template, parent, pub, a.keys[last])
	if err != nil {
		return nil, fmt.Errorf("make the next authority: %w", err)
	}
	return &Authority{
		lineage: append(slices.Clone(a.lineage), cert),
		keys:    append(slices.Clone(a.keys), key),
		issuer:  a.issuer,
	}, nil
}

// IssuingAs returns the authority with another generation issuing. One that it
// does not know issues nothing: it waits to be granted.
func (a *Authority) IssuingAs(generation int) (*Authority, error) {
	if generation < 1 || generation > len(a.lineage) {
		return nil, api.Errorf(api.KindUnavailable, "this anchor does not know authority %d yet", generation).
			WithHint("it gets its key from the leader in a moment; try again")
	}
	b := *a
	b.issuer = generation - 1
	return &b, nil
}

// Upto returns the authority without the generations after a given one: those
// were withdrawn before they issued anything.
func (a *Authority) Upto(generation int) *Authority {
	if generation < a.Issuer() || generation >= len(a.lineage) {
		return a
	}
	b := *a
	b.lineage, b.keys = a.lineage[:generation:generation], a.keys[:generation:generation]
	return &b
}

// Forget returns the authority without the keys of the generations before the
// oldest that counts: nobody believes what they would sign. It reports whether
// there was one to forget.
func (a *Authority) Forget(oldest int) (*Authority, bool) {
	b := *a
	b.keys = slices.Clone(a.keys)
	forgot := false
	for i := range min(oldest, len(b.keys)) - 1 {
		forgot = forgot || b.keys[i] != nil
		b.keys[i] = nil
	}
	return &b, forgot
}

// chain is what follows a certificate of the generation that issues.
func (a *Authority) chain() []byte {
	var chain []byte
	for i := a.issuer; i > 0; i-- {
		chain = append(chain, a.lineage[i].Raw...)
	}
	return chain
}

// Trust is the cluster's authority as a member knows it: the generations, and
// which of them still count. The zero Trust believes nobody.
type Trust struct {
	lineage []*x509.Certificate
	oldest  int // generation; those before it were retired
}

// TrustIn believes a founding authority and whatever succeeds it.
func TrustIn(founding *x509.Certificate) Trust {
	return Trust{lineage: []*x509.Certificate{founding}, oldest: 1}
}

// Generations returns how many are known.
func (t Trust) Generations() int { return len(t.lineage) }

// Oldest returns the oldest generation that counts.
func (t Trust) Oldest() int { return t.oldest }

// With returns the trust with the generations as an anchor tells them: DER,
// founding one first. What they must prove is that each was signed by the one
// before it; the founding one is the one that is known. A generation that does
// not count any more does not come back.
func (t Trust) With(lineage [][]byte, oldest int) (Trust, error) {
	if len(lineage) == 0 {
		return t, nil // an anchor from before there were generations
	}
	if len(lineage) > MaxAuthorities || oldest > len(lineage) {
		return t, api.Errorf(api.KindDenied, "the cluster cannot have %d authorities, of which %d counts", len(lineage), oldest)
	}
	known := t.lineage[:1:1]
	if string(lineage[0]) != string(known[0].Raw) {
		return t, api.Errorf(api.KindDenied, "%w: its first authority is another one", ErrOtherCluster)
	}
	for i, der := range lineage[1:] {
		next, err := parseSuccessor(der, known[i])
		if err != nil {
			return t, err
		}
		known = append(known, next)
	}
	return Trust{lineage: known, oldest: max(oldest, min(t.oldest, len(known)))}, nil
}

// WithOwn returns the trust with what this member's own certificate says of the
// generations. It is all that a device knows that was never told more.
func (t Trust) WithOwn(cert []byte) (Trust, error) {
	certs, err := parseChain(cert)
	if err != nil {
		return t, err
	}
	lineage, err := t.follow(certs[1:])
	if err != nil || len(lineage) <= len(t.lineage) {
		return t, err
	}
	t.lineage = lineage
	return t, nil
}

func parseSuccessor(der []byte, parent *x509.Certificate) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, api.Errorf(api.KindDenied, "%w: an authority's: %v", ErrMalformed, err)
	}
	return cert, checkSuccessor(cert, parent)
}

func checkSuccessor(cert, parent *x509.Certificate) error {
	if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !cert.IsCA {
		return api.Errorf(api.KindDenied, "%w: an authority's is not one", ErrMalformed)
	}
	if err := cert.CheckSignatureFrom(parent); err != nil {
		return api.Errorf(api.KindDenied, "%w: an authority was not signed by the one before it", ErrOtherCluster)
	}
	return nil
}

// follow returns the generations that a certificate's issuers are, in the order
// of their age. They must be those that are known, or succeed the last of them.
func (t Trust) follow(issuers []*x509.Certificate) ([]*x509.Certificate, error) {
	lineage := t.lineage[:1:1]
	for i, c := range slices.Backward(issuers) {
		generation := len(issuers) - i + 1
		if generation <= len(t.lineage) {
			if !c.Equal(t.lineage[generation-1]) {
				return nil, api.Errorf(api.KindDenied, "%w: its authority %d is not the one that is known here", ErrOtherCluster, generation).
					WithHint("join again with a new token; if that happens often, somebody may hold the key of an old authority")
			}
		} else if err := checkSuccessor(c, lineage[len(lineage)-1]); err != nil {
			return nil, err
		}
		lineage = append(lineage, c)
	}
	return lineage, nil
}

// Verify checks a membership certificate and returns what it says. It does not
// know revocations.
func (t Trust) Verify(cert []byte, now time.Time, opts VerifyOptions) (api.Member, error) {
	certs, err := parseChain(cert)
	if err != nil {
		return api.Member{}, err
	}
	lineage, err := t.follow(certs[1:])
	if err != nil {
		return api.Member{}, err
	}
	leaf, generation := certs[0], len(lineage)
	cluster := ClusterID(t.lineage[0])
	if err := leaf.CheckSignatureFrom(lineage[generation-1]); err != nil {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: not signed by the authority of cluster %s", ErrOtherCluster, cluster).
			WithHint("it was issued by another cluster, or before this cluster was created anew: join again with a new token")
	}
	member, err := readMember(leaf, cluster)
	if err != nil {
		return api.Member{}, err
	}
	member.Authority = generation
	if opts.Peer != "" && member.ID != opts.Peer {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: it names %s, presented by %s", ErrOtherPeer, member.ID, opts.Peer)
	}
	if generation < t.oldest {
		return api.Member{}, api.Errorf(api.KindDenied, "%w: authority %d of the cluster issued it, and only those from %d on count", ErrRetired, generation, t.oldest).
			WithHint("the device was away while the cluster changed its authority: empty its data directory and join again with a new token")
	}
	return member, checkValidity(leaf, now, opts)
}

// VerifyRevocation checks that a generation that counts signed a revocation.
// What a retired one signed is not needed any more: its certificates are dead.
func (t Trust) VerifyRevocation(r api.Revocation) error {
	var err error
	for _, ca := range slices.Backward(t.lineage[min(t.oldest, len(t.lineage))-1:]) {
		if err = verifyRevocation(r, ca, ClusterID(t.lineage[0])); err == nil {
			return nil
		}
	}
	return err
}

// IssuersOf returns the generations that lead from the founding one to the one
// that signed a revocation, for somebody who has not heard of them: DER, the
// newest first, as they follow a certificate. There are none when the founding
// one signed it.
func (t Trust) IssuersOf(r api.Revocation) (issuers []byte) {
	if len(t.lineage) == 0 {
		return nil
	}
	for signer, ca := range t.lineage {
		if verifyRevocation(r, ca, ClusterID(t.lineage[0])) == nil {
			for i := signer; i > 0; i-- {
				issuers = append(issuers, t.lineage[i].Raw...)
			}
			return issuers
		}
	}
	return nil
}

// VerifyRevocationBy is VerifyRevocation for a revocation that comes with the
// generations which lead to its signer. They must be those that are known, and
// succeed them; nothing but the revocation is believed on their account.
func (t Trust) VerifyRevocationBy(r api.Revocation, issuers []byte) error {
	err := t.VerifyRevocation(r)
	if err == nil || len(issuers) == 0 {
		return err
	}
	certs, err := parseChain(issuers)
	if err != nil {
		return err
	}
	lineage, err := t.follow(certs)
	if err != nil {
		return err
	}
	if len(lineage) < t.oldest {
		return api.Errorf(api.KindDenied, "%w: authority %d of the cluster signed the revocation of %s", ErrRetired, len(lineage), clip(r.ID, maxSubjectName))
	}
	return verifyRevocation(r, lineage[len(lineage)-1], ClusterID(t.lineage[0]))
}

func rawOf(certs []*x509.Certificate) [][]byte {
	out := make([][]byte, len(certs))
	for i, c := range certs {
		out[i] = c.Raw
	}
	return out
}

// ParseAuthority reads the certificate (DER) of any generation, of which nothing
// is checked.
func ParseAuthority(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "parse the certificate of an authority: %w", err)
	}
	return cert, nil
}
