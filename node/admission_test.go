package node

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// bureau issues certificates that began in the past.
type bureau struct {
	t         *testing.T
	authority *identity.Authority
	at        func() time.Time
}

// deviceKey makes a device's key.
func deviceKey(t *testing.T) (ed25519.PrivateKey, api.NodeID) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, identity.NodeID(public)
}

func newBureau(t *testing.T) *bureau {
	t.Helper()
	a, err := identity.NewAuthority("home", time.Now().Add(-365*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &bureau{t, a, time.Now}
}

func (b *bureau) issue(ago time.Duration, operator string, roles ...api.Role) (api.NodeID, []byte) {
	b.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	csr, err := identity.NewCSR(key, "x")
	if err != nil {
		b.t.Fatal(err)
	}
	cert, m, err := b.authority.Issue(csr, roles, operator, b.at().Add(-ago), certificateTTL)
	if err != nil {
		b.t.Fatal(err)
	}
	return m.ID, cert
}

func (b *bureau) admission(anchor bool) *admission {
	b.t.Helper()
	id, cert := b.issue(0, "", api.RoleNode)
	a, err := newAdmission(b.authority.Certificate(), id, cert, anchor, time.Now)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

func TestExpiredCertificates(t *testing.T) {
	const day = 24 * time.Hour
	b := newBureau(t)
	anchor, node := b.admission(true), b.admission(false)
	anchor.sawAnchor()
	node.sawAnchor()
	island := b.admission(false) // no anchor answered since it started
	for _, c := range []struct {
		name     string
		at       *admission
		ago      time.Duration
		operator string
		want     bool
	}{
		{"fresh at a node", node, 0, "", true},
		{"a laptop back from a weekend, at an anchor", anchor, 3 * day, "", true},
		{"the same at a node that has anchors", node, 3 * day, "", false},
		{"the same on an island", island, 3 * day, "", true},
		{"after the grace, at an anchor", anchor, 30 * day, "", false},
		{"after the grace, on an island", island, 30 * day, "", false},
		{"an operator's, at an anchor", anchor, 3 * day, "alice", false},
	} {
		role := api.RoleNode
		if c.operator != "" {
			role = api.RoleOperator
		}
		id, cert := b.issue(c.ago, c.operator, role)
		if _, err := c.at.Verify(id, cert); (err == nil) != c.want {
			t.Errorf("%s: admitted is %v, want %v (%v)", c.name, err == nil, c.want, err)
		}
		c.at.revoked.learn([]api.Revocation{{ID: string(id)}})
		if _, err := c.at.Verify(id, cert); api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: still admitted after it was revoked: %v", c.name, err)
		}
	}
}

func TestOwnCertificateMayHaveEndedButMustBeOurs(t *testing.T) {
	b := newBureau(t)
	id, old := b.issue(40*24*time.Hour, "", api.RoleNode)
	a, err := newAdmission(b.authority.Certificate(), id, old, false, time.Now)
	if err != nil {
		t.Fatalf("a device that was away for long does not start: %v", err)
	}
	if at, _ := a.renewal(); time.Until(at) > 0 {
		t.Error("it does not renew at once")
	}
	if _, foreign := b.issue(0, "", api.RoleNode); a.replace(foreign) == nil {
		t.Error("took a certificate of another key for its own")
	}
}
