package identity

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func nodeOf(key ed25519.PrivateKey) api.NodeID { return NodeID(key.Public().(ed25519.PublicKey)) }

func newAuthority(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority("home", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *Authority, key ed25519.PrivateKey, operator string, ttl time.Duration, roles ...api.Role) []byte {
	t.Helper()
	csr, err := NewCSR(key, "pi")
	if err != nil {
		t.Fatal(err)
	}
	der, _, err := a.Issue(csr, roles, operator, now, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func openRoot(t testing.TB) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func TestNodeIDIsTheLibp2pPeerID(t *testing.T) {
	key := newKey(t)
	lkey, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.IDFromPublicKey(lkey)
	if err != nil {
		t.Fatal(err)
	}
	id := nodeOf(key)
	if string(id) != want.String() {
		t.Fatalf("NodeID = %s, libp2p says %s", id, want)
	}
	pub, err := PublicKey(id)
	if err != nil || !pub.Equal(key.Public()) {
		t.Fatalf("PublicKey(%s) = %x, %v", id, pub, err)
	}
	for _, bad := range []api.NodeID{"", "12D3", "0OIl", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", api.NodeID(strings.Repeat("1", 1<<20))} {
		if _, err := PublicKey(bad); api.KindOf(err) != api.KindInvalid {
			t.Errorf("PublicKey(%.60q) = %v, want an invalid error", bad, err)
		}
	}
}

func TestKeyIsCreatedOnceAndPrivate(t *testing.T) {
	root, dir := openRoot(t)
	first, err := LoadOrCreateKey(root, "node.key")
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreateKey(root, "node.key")
	if err != nil || !second.Equal(first) {
		t.Fatalf("the key changed: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	path := filepath.Join(dir, "node.key")
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(root, "node.key"); api.KindOf(err) != api.KindDenied {
		t.Errorf("a key that others can read: %v, want denied", err)
	}
}

func TestDamagedKeyIsNotReplaced(t *testing.T) {
	root, dir := openRoot(t)
	path := filepath.Join(dir, "node.key")
	if err := os.WriteFile(path, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(root, "node.key"); err == nil {
		t.Fatal("a damaged key was accepted or replaced")
	}
	if raw, _ := os.ReadFile(path); string(raw) != "-----BEGIN" {
		t.Errorf("the file changed to %q", raw)
	}
}

func TestIssueAndVerify(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	der := issue(t, a, key, "", time.Hour, api.RoleNode, api.RoleAnchor)
	m, err := Verify(der, a.Certificate(), now, VerifyOptions{Peer: nodeOf(key)})
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != nodeOf(key) || m.Cluster != a.ClusterID() || m.Operator != "" || !m.NotAfter.Equal(now.Add(time.Hour)) || m.Serial == "" {
		t.Errorf("member = %+v", m)
	}
	if !slices.Equal(m.Roles, []api.Role{api.RoleNode, api.RoleAnchor}) {
		t.Errorf("roles = %v", m.Roles)
	}

	der = issue(t, a, key, "ada", time.Hour, api.RoleOperator)
	m, err = Verify(der, a.Certificate(), now, VerifyOptions{Peer: nodeOf(key)})
	if err != nil || m.Operator != "ada" || !m.Has(api.RoleOperator) || m.ID != nodeOf(key) {
		t.Errorf("operator = %+v, %v", m, err)
	}
}

func TestVerifySaysWhy(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	der := issue(t, a, key, "", time.Hour, api.RoleNode)
	other := newAuthority(t)
	broken := slices.Clone(der)
	broken[len(broken)-1] ^= 1
	end := now.Add(time.Hour)
	tests := []struct {
		name string
		der  []byte
		ca   *Authority
		at   time.Time
		opts VerifyOptions
		want error
	}{
		{"good", der, a, now, VerifyOptions{Peer: nodeOf(key)}, nil},
		{"clock five minutes behind", der, a, now.Add(-Backdate), VerifyOptions{}, nil},
		{"clock further behind", der, a, now.Add(-Backdate - time.Second), VerifyOptions{}, ErrNotYetValid},
		{"skew", der, a, now.Add(-Backdate - time.Second), VerifyOptions{Skew: time.Minute}, nil},
		{"last second", der, a, end, VerifyOptions{}, nil},
		{"expired", der, a, end.Add(time.Second), VerifyOptions{}, ErrExpired},
		{"within grace", der, a, end.Add(24 * time.Hour), VerifyOptions{Grace: 48 * time.Hour}, nil},
		{"after grace", der, a, end.Add(49 * time.Hour), VerifyOptions{Grace: 48 * time.Hour}, ErrExpired},
		{"other authority", der, other, now, VerifyOptions{}, ErrOtherCluster},
		{"forged", broken, a, now, VerifyOptions{}, ErrOtherCluster},
		{"other peer", der, a, now, VerifyOptions{Peer: nodeOf(newKey(t))}, ErrOtherPeer},
		{"empty", nil, a, now, VerifyOptions{}, ErrMalformed},
		{"junk", []byte("junk"), a, now, VerifyOptions{}, ErrMalformed},
		{"too large", make([]byte, maxCertificate+1), a, now, VerifyOptions{}, ErrMalformed},
		{"the authority itself", a.Certificate().Raw, a, now, VerifyOptions{}, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Verify(tt.der, tt.ca.Certificate(), tt.at, tt.opts)
			if !errors.Is(err, tt.want) {
				t.Fatalf("err = %v, want %v", err, tt.want)
			}
			if err != nil && api.KindOf(err) != api.KindDenied {
				t.Errorf("kind = %s, want denied", api.KindOf(err))
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	a := newAuthority(t)
	csr, err := NewCSR(newKey(t), "pi")
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(csr)
	forged[len(forged)-1] ^= 1
	tests := []struct {
		name     string
		csr      []byte
		roles    []api.Role
		operator string
		ttl      time.Duration
		kind     api.Kind
	}{
		{"no role", csr, nil, "", time.Hour, api.KindInvalid},
		{"node that is operator", csr, []api.Role{api.RoleNode, api.RoleOperator}, "", time.Hour, api.KindInvalid},
		{"operator that is anchor", csr, []api.Role{api.RoleAnchor}, "ada", time.Hour, api.KindInvalid},
		{"role twice", csr, []api.Role{api.RoleNode, api.RoleNode}, "", time.Hour, api.KindInvalid},
		{"name with a slash", csr, []api.Role{api.RoleOperator}, "ada/../x", time.Hour, api.KindInvalid},
		{"too long a life", csr, []api.Role{api.RoleNode}, "", MaxTTL + 1, api.KindInvalid},
		{"no life", csr, []api.Role{api.RoleNode}, "", 0, api.KindInvalid},
		{"not a request", []byte("x"), []api.Role{api.RoleNode}, "", time.Hour, api.KindInvalid},
		{"forged request", forged, []api.Role{api.RoleNode}, "", time.Hour, api.KindDenied},
	}
	for _, tt := range tests {
		if _, _, err := a.Issue(tt.csr, tt.roles, tt.operator, now, tt.ttl); api.KindOf(err) != tt.kind {
			t.Errorf("%s: err = %v, want kind %s", tt.name, err, tt.kind)
		}
	}
}

func TestParseCAPinsTheCluster(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	if _, err := ParseCA(a.Certificate().Raw, a.ClusterID()); err != nil {
		t.Error(err)
	}
	if _, err := ParseCA(b.Certificate().Raw, a.ClusterID()); api.KindOf(err) != api.KindDenied {
		t.Errorf("another cluster's CA: %v", err)
	}
	member := issue(t, a, newKey(t), "", time.Hour, api.RoleNode)
	if _, err := ParseCA(member, ""); api.KindOf(err) != api.KindInvalid {
		t.Errorf("a member's certificate as CA: %v", err)
	}
}

func TestSealAndOpen(t *testing.T) {
	root, dir := openRoot(t)
	if _, err := OpenAuthority(root); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open before seal: %v, want not exist", err)
	}
	a, key := newAuthority(t), newKey(t)
	for range 2 { // sealing again keeps the keyset
		if err := a.Seal(root); err != nil {
			t.Fatal(err)
		}
	}
	b, err := OpenAuthority(root)
	if err != nil {
		t.Fatal(err)
	}
	der := issue(t, b, key, "", time.Hour, api.RoleNode)
	if _, err := Verify(der, a.Certificate(), now, VerifyOptions{Peer: nodeOf(key)}); err != nil {
		t.Errorf("the opened authority is another one: %v", err)
	}
	sealed, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sealed), string(a.keys[0].Seed())) {
		t.Error("the key is in the file in clear")
	}

	other, otherDir := openRoot(t)
	if err := newAuthority(t).Seal(other); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(otherDir, AuthorityFile), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(other); err == nil {
		t.Error("opened with another cluster's keyset")
	}
}

func TestRenewAt(t *testing.T) {
	end := now.Add(10 * time.Hour)
	if at := RenewAt(now, end, 0); !at.Equal(now.Add(5 * time.Hour)) {
		t.Errorf("earliest = %v", at)
	}
	if at := RenewAt(now, end, 0.999999); at.Before(now.Add(7*time.Hour)) || at.After(now.Add(8*time.Hour)) {
		t.Errorf("latest = %v", at)
	}
}
