package node

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
)

// helloMesh runs a mesh with an admission of its own.
func helloMesh(t *testing.T, key ed25519.PrivateKey, adm p2p.Admission, clock func() time.Time, contacts ...p2p.Contact) *p2p.Mesh {
	t.Helper()
	m, err := p2p.New(p2p.Config{
		Key: key, Admission: adm, Cluster: "test", Contacts: contacts, Now: clock,
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Public: p2p.PublicNo, NoLAN: true, NoPortMap: true,
		AdmitWithin: time.Second, RefreshEvery: 100 * time.Millisecond, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the mesh ended with %v", err)
		}
	})
	return m
}

// shows presents a certificate, whatever it is, and believes everybody.
type shows struct{ cert []byte }

func (s shows) Certificate() []byte { return s.cert }
func (s shows) Verify(id api.NodeID, _ []byte) (api.Member, error) {
	return api.Member{ID: id, Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Hour)}, nil
}
func (s shows) Revoked(api.NodeID) bool { return false }

// TestHelloRefusesAndSaysWhy: whoever shows a certificate that does not hold is
// refused, and learns what is wrong with it (CLD-REQ-060).
func TestHelloRefusesAndSaysWhy(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	first, err := identity.NewAuthority("home", now.Add(-40*day))
	if err != nil {
		t.Fatal(err)
	}
	second, err := first.Succeed(now)
	if err != nil {
		t.Fatal(err)
	}
	if second, err = second.IssuingAs(2); err != nil {
		t.Fatal(err)
	}
	foreign, err := identity.NewAuthority("home", now)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a *identity.Authority, key ed25519.PrivateKey, at time.Time, operator string, roles ...api.Role) []byte {
		t.Helper()
		csr, err := identity.NewCSR(key, "pi")
		if err != nil {
			t.Fatal(err)
		}
		cert, _, err := a.Issue(csr, roles, operator, at, certificateTTL)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}

	judgeKey, judgeID := deviceKey(t)
	judge, err := newAdmission(first.Certificate(), judgeID, issue(second, judgeKey, now, "", api.RoleNode), false, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := judge.follow(clusterWith(second, 2, 2), 3); err != nil {
		t.Fatal(err)
	}
	judge.sawAnchor() // no island
	revokedKey, revokedID := deviceKey(t)
	judge.revoked.learn([]api.Revocation{{ID: string(revokedID), Reason: "stolen"}})
	server := helloMesh(t, judgeKey, judge, time.Now)
	if _, err := server.Listen(api.ProtoRaft, api.RoleAnchor); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(api.ProtoAPI); err != nil {
		t.Fatal(err)
	}

	key, _ := deviceKey(t)
	otherKey, _ := deviceKey(t)
	late := func(by time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(by) } }
	for _, c := range []struct {
		name  string
		key   ed25519.PrivateKey
		cert  []byte
		clock func() time.Time
		proto string
		want  []string // in what the refused one learns; none: it is let in
	}{
		{"good", key, issue(second, key, now, "", api.RoleNode), nil, api.ProtoAPI, nil},
		{"clock nine minutes ahead", key, issue(second, key, now.Add(9*time.Minute), "", api.RoleNode), late(9 * time.Minute), api.ProtoAPI, nil},
		{"expired", key, issue(second, key, now.Add(-3*day), "", api.RoleNode), nil, api.ProtoAPI, []string{"expired", "it ended at"}},
		{"not yet valid", key, issue(second, key, now.Add(3*day), "", api.RoleNode), nil, api.ProtoAPI, []string{"not yet valid", "it starts at"}},
		{"clock three days ahead", key, issue(second, key, now.Add(3*day), "", api.RoleNode), late(3 * day), api.ProtoAPI,
			[]string{"not yet valid", "this device's clock is 3 days ahead of the other one's", "timedatectl"}},
		{"clock three days behind", key, issue(second, key, now.Add(-3*day), "", api.RoleNode), late(-3 * day), api.ProtoAPI,
			[]string{"expired", "this device's clock is 3 days behind the other one's"}},
		{"other authority", key, issue(foreign, key, now, "", api.RoleNode), nil, api.ProtoAPI, []string{"another cluster", "not signed by the authority"}},
		{"other peer", key, issue(second, otherKey, now, "", api.RoleNode), nil, api.ProtoAPI, []string{"another peer"}},
		{"retired authority", key, issue(first, key, now, "", api.RoleNode), nil, api.ProtoAPI, []string{"retired authority", "authority 1", "from 2 on"}},
		{"revoked", revokedKey, issue(second, revokedKey, now, "", api.RoleNode), nil, api.ProtoAPI, []string{"removed from the cluster"}},
		{"none", key, nil, nil, api.ProtoAPI, []string{"no membership certificate was shown"}},
		{"junk", key, []byte("junk"), nil, api.ProtoAPI, []string{"malformed"}},
		{"a person who wants to be an anchor", key, issue(second, key, now, "eve", api.RoleOperator), nil, api.ProtoRaft, []string{"roles of this certificate"}},
		{"a node that wants to be one", key, issue(second, key, now, "", api.RoleNode), nil, api.ProtoRaft, []string{"roles of this certificate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			contact := p2p.Contact{ID: server.ID(), Addresses: server.Addrs(), Anchor: true, Relay: true}
			client := helloMesh(t, c.key, shows{c.cert}, c.clock, contact)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, err := client.Dial(ctx, server.ID(), c.proto)
			if err == nil {
				defer conn.Close()
				if c.proto == api.ProtoRaft { // the stream is open before the other end looks at it
					_, err = conn.Read(make([]byte, 1))
				}
			}
			if len(c.want) == 0 && err != nil {
				t.Fatalf("refused: %v", err)
			}
			for _, text := range c.want {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("it learns %v, which does not say %q", err, text)
				}
			}
		})
	}
}
