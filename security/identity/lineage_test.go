package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// succeed returns the authority with one generation more, which issues.
func succeed(t testing.TB, a *Authority) *Authority {
	t.Helper()
	next, err := a.Succeed(now)
	if err != nil {
		t.Fatal(err)
	}
	if next, err = next.IssuingAs(next.Generations()); err != nil {
		t.Fatal(err)
	}
	return next
}

func TestSuccessorIsBelievedByWhoKnowsTheFounder(t *testing.T) {
	first, key := newAuthority(t), newKey(t)
	third := succeed(t, succeed(t, first))
	if third.ClusterID() != first.ClusterID() {
		t.Fatal("the cluster's ID changed")
	}
	cert := issue(t, third, key, "", time.Hour, api.RoleNode)
	m, err := Verify(cert, first.Certificate(), now, VerifyOptions{Peer: nodeOf(key)})
	if err != nil || m.Authority != 3 || m.Cluster != first.ClusterID() {
		t.Fatalf("member %+v, %v", m, err)
	}
	if _, err := Verify(cert, newAuthority(t).Certificate(), now, VerifyOptions{}); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("in another cluster: %v", err)
	}
	leaf, err := Leaf(cert)
	if err != nil || leaf.IsCA {
		t.Errorf("the leaf is %v, %v", leaf, err)
	}
	if _, err := Verify(leaf.Raw, first.Certificate(), now, VerifyOptions{}); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("without its issuers: %v", err)
	}
}

// A standard verifier that was given the founding certificate alone believes
// the chain that TLS sends, as curl and Prometheus do.
func TestTLSChainSatisfiesStandardVerifiers(t *testing.T) {
	first, key := newAuthority(t), newKey(t)
	third := succeed(t, succeed(t, first))
	cert := issue(t, third, key, "", time.Hour, api.RoleNode)
	chain, err := TLSChain(cert, first.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(first.Certificate())
	var parsed []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, c)
		intermediates.AddCert(c)
	}
	if _, err := parsed[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(FromTLS(parsed), cert) {
		t.Error("what TLS received is not what was sent")
	}
}

func TestTrustPinsWhatItKnows(t *testing.T) {
	first, key := newAuthority(t), newKey(t)
	second := succeed(t, first)
	rogue := succeed(t, first) // by somebody who has the founding key
	third := succeed(t, second)
	know := func(a *Authority, oldest int) Trust {
		t.Helper()
		trust, err := TrustIn(first.Certificate()).With(a.Lineage(), oldest)
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	for _, c := range []struct {
		name   string
		trust  Trust
		issuer *Authority
		want   error
	}{
		{"the founder's, before a change", know(first, 1), first, nil},
		{"of a successor that is not known yet", know(first, 1), third, nil},
		{"the old one's, during the overlap", know(second, 1), first, nil},
		{"the old one's, after it", know(second, 2), first, ErrRetired},
		{"the new one's, after it", know(second, 2), second, nil},
		{"the next but one's, after it", know(second, 2), third, nil},
		{"of a successor made with a stolen old key", know(second, 2), rogue, ErrOtherCluster},
		{"of another cluster", know(second, 2), newAuthority(t), ErrOtherCluster},
	} {
		cert := issue(t, c.issuer, key, "", time.Hour, api.RoleNode)
		if _, err := c.trust.Verify(cert, now, VerifyOptions{Peer: nodeOf(key)}); !errors.Is(err, c.want) || err != nil && api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestTrustLearns(t *testing.T) {
	first := newAuthority(t)
	second := succeed(t, first)
	trust, err := TrustIn(first.Certificate()).With(second.Lineage(), 2)
	if err != nil || trust.Generations() != 2 || trust.Oldest() != 2 {
		t.Fatalf("%d generations, %d is the oldest, %v", trust.Generations(), trust.Oldest(), err)
	}
	if same, err := trust.With(nil, 0); err != nil || same.Generations() != 2 {
		t.Errorf("an anchor that knows no generations: %d, %v", same.Generations(), err)
	}
	if back, err := trust.With(second.Lineage(), 1); err != nil || back.Oldest() != 2 {
		t.Errorf("a retired generation came back: oldest %d, %v", back.Oldest(), err)
	}
	swapped := [][]byte{second.Lineage()[0], succeed(t, newAuthority(t)).Lineage()[1]}
	for name, lineage := range map[string][][]byte{
		"another founder":       newAuthority(t).Lineage(),
		"a foreign successor":   swapped,
		"too many":              make([][]byte, MaxAuthorities+1),
		"junk as successor":     {second.Lineage()[0], []byte("junk")},
		"itself as a successor": {second.Lineage()[0], second.Lineage()[1], second.Lineage()[1]},
	} {
		if got, err := trust.With(lineage, 1); api.KindOf(err) != api.KindDenied || got.Generations() != 2 {
			t.Errorf("%s: %d generations, %v", name, got.Generations(), err)
		}
	}
	own, err := TrustIn(first.Certificate()).WithOwn(issue(t, second, newKey(t), "", time.Hour, api.RoleNode))
	if err != nil || own.Generations() != 2 {
		t.Errorf("from its own certificate: %d generations, %v", own.Generations(), err)
	}
}

func TestGenerationsTravelSealed(t *testing.T) {
	third := succeed(t, succeed(t, newAuthority(t)))
	third, forgot := third.Forget(3)
	if !forgot || third.Holds() != 3 {
		t.Fatalf("forgot the old keys: %v, holds %d", forgot, third.Holds())
	}
	same := func(how string, b *Authority, issuer int, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if b.Issuer() != issuer || !slices.EqualFunc(b.Lineage(), third.Lineage(), bytes.Equal) || b.keys[0] != nil || !b.keys[2].Equal(third.keys[2]) {
			t.Errorf("%s: another authority arrived, which issues as %d", how, b.Issuer())
		}
	}
	root, _ := openRoot(t)
	if err := third.Seal(root); err != nil {
		t.Fatal(err)
	}
	opened, err := OpenAuthority(root)
	same("by disk", opened, 1, err)
	if _, _, err := opened.Issue(nil, nil, "", now, time.Hour); err == nil {
		t.Error("it issues without a key")
	}

	key, public, err := NewGrantKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := third.Grant(public, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	granted, err := key.Open(sealed, third.ClusterID(), "node-1")
	same("by grant", granted, 3, err)
}

func TestGenerationsEnd(t *testing.T) {
	a := newAuthority(t)
	for a.Generations() < MaxAuthorities {
		a = succeed(t, a)
	}
	if _, err := a.Succeed(now); api.KindOf(err) != api.KindExhausted {
		t.Errorf("one too many: %v", err)
	}
	key := newKey(t)
	cert := issue(t, a, key, "", time.Hour, api.RoleNode)
	if len(cert) > maxCertificate {
		t.Errorf("the last generation's certificates have %d bytes, more than the %d that are read", len(cert), maxCertificate)
	}
	if _, err := a.IssuingAs(MaxAuthorities + 1); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("a generation that is not known: %v", err)
	}
	if less := a.Upto(MaxAuthorities - 1); less != a {
		t.Error("a generation that issues was withdrawn")
	}
	second, err := newAuthority(t).Succeed(now)
	if err != nil {
		t.Fatal(err)
	}
	if less := second.Upto(1); less.Generations() != 1 || less.Holds() != 1 {
		t.Errorf("withdrawn: %d generations left", less.Generations())
	}
}

func FuzzTrust(f *testing.F) {
	first := newAuthority(f)
	second := succeed(f, first)
	trust, err := TrustIn(first.Certificate()).With(second.Lineage(), 1)
	if err != nil {
		f.Fatal(err)
	}
	key := newKey(f)
	for _, a := range []*Authority{first, second, succeed(f, second)} {
		f.Add(issue(f, a, key, "", time.Hour, api.RoleNode))
	}
	f.Add(bytes.Join(second.Lineage(), nil))
	f.Fuzz(func(t *testing.T, cert []byte) {
		m, err := trust.Verify(cert, now, VerifyOptions{})
		if err == nil && m.ID != nodeOf(key) {
			t.Errorf("a certificate of nobody's making is that of %s", m.ID)
		}
		_, _ = trust.WithOwn(cert)
	})
}

// Who knows the founding authority alone is convinced of a removal by the
// generations that lead to its signer, and by nothing else.
func TestRevocationComesWithItsIssuers(t *testing.T) {
	first := newAuthority(t)
	second := succeed(t, first)
	third := succeed(t, second)
	away := TrustIn(first.Certificate())
	revoke := func(a *Authority) api.Revocation {
		t.Helper()
		r, err := a.Revoke(api.Revocation{ID: "gone", Reason: "sold", At: now})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := revoke(third)
	issuers := third.Trust().IssuersOf(r)
	if err := away.VerifyRevocationBy(r, issuers); err != nil {
		t.Errorf("with its issuers: %v", err)
	}
	if issuers := third.Trust().IssuersOf(revoke(first)); issuers != nil {
		t.Errorf("%d bytes lead to the founding authority", len(issuers))
	}
	if away.Generations() != 1 {
		t.Error("it believes them from now on")
	}
	forked := succeed(t, first) // by who has stolen the founding key
	retired, err := TrustIn(first.Certificate()).With(third.Lineage(), 3)
	if err != nil {
		t.Fatal(err)
	}
	altered := r
	altered.ID = "another"
	for name, c := range map[string]struct {
		trust   Trust
		r       api.Revocation
		issuers []byte
	}{
		"without them":          {away, r, nil},
		"with half of them":     {away, r, third.Trust().IssuersOf(revoke(second))},
		"of another revocation": {away, altered, issuers},
		"of another cluster":    {TrustIn(newAuthority(t).Certificate()), r, issuers},
		"garbage":               {away, r, []byte("garbage")},
		"a branch":              {third.Trust(), revoke(forked), forked.Trust().IssuersOf(revoke(forked))},
		"a retired one":         {retired, revoke(second), third.Trust().IssuersOf(revoke(second))},
	} {
		if err := c.trust.VerifyRevocationBy(c.r, c.issuers); api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
}
