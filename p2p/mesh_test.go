package p2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cloudless-project/cloudless/api"
)

const (
	testTimeout = time.Minute // that a busy machine may take for anything
	soon        = 2 * time.Second
)

// authority is the cluster as a test sees it: a signing key, who is revoked,
// and what time it is for certificates.
type authority struct {
	key ed25519.PrivateKey

	mu      sync.Mutex
	revoked map[api.NodeID]bool
}

// testCert is a signed statement, which is all that the mesh wants to know of
// a certificate.
type testCert struct {
	Member    api.Member
	Signature []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key: key, revoked: make(map[api.NodeID]bool)}
}

func (a *authority) issue(member api.Member) []byte {
	body, _ := json.Marshal(member)
	cert, _ := json.Marshal(testCert{Member: member, Signature: ed25519.Sign(a.key, body)})
	return cert
}

func (a *authority) revoke(id api.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[id] = true
}

// admission is one member's view of the authority.
type admission struct {
	*authority
	mu   sync.Mutex
	cert []byte
}

func (a *admission) Certificate() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cert
}

func (a *admission) set(cert []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cert = cert
}

func (a *admission) Verify(_ api.NodeID, cert []byte) (api.Member, error) {
	var c testCert
	if err := json.Unmarshal(cert, &c); err != nil {
		return api.Member{}, api.Errorf(api.KindDenied, "malformed: %w", err)
	}
	body, _ := json.Marshal(c.Member)
	if !ed25519.Verify(a.key.Public().(ed25519.PublicKey), body, c.Signature) {
		return api.Member{}, api.Errorf(api.KindDenied, "another cluster")
	}
	if time.Now().After(c.Member.NotAfter) {
		return api.Member{}, api.Errorf(api.KindDenied, "expired")
	}
	return c.Member, nil
}

func (a *admission) Revoked(id api.NodeID) bool {
	a.authority.mu.Lock()
	defer a.authority.mu.Unlock()
	return a.revoked[id]
}

// node is a mesh under test.
type node struct {
	*Mesh
	adm  *admission
	stop func()
}

func (n *node) contact() Contact {
	return Contact{ID: n.ID(), Addresses: n.Addrs(), Relay: n.cfg.Public == PublicYes, Anchor: n.cfg.Public == PublicYes}
}

func newKey(t testing.TB) (ed25519.PrivateKey, api.NodeID) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return key, api.NodeID(id.String())
}

func loopback() []string { return []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} }

// start runs a mesh on loopback; edit changes its configuration.
func (a *authority) start(t testing.TB, edit func(*Config), roles ...api.Role) *node {
	t.Helper()
	key, id := newKey(t)
	if len(roles) == 0 {
		roles = []api.Role{api.RoleNode}
	}
	adm := &admission{authority: a}
	adm.set(a.issue(api.Member{ID: id, Roles: roles, NotAfter: time.Now().Add(time.Hour)}))
	cfg := Config{
		Key: key, Admission: adm, Cluster: "test", Listen: loopback(), NoLAN: true, NoPortMap: true,
		AdmitWithin: testTimeout / 4, RefreshEvery: 50 * time.Millisecond, ProbeEvery: time.Hour,
		Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)).Named(string(id[len(id)-4:])),
	}
	if edit != nil {
		edit(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return &node{Mesh: m, adm: adm, stop: stop}
}

func public(c *Config) { c.Public = PublicYes }

// hasty makes a mesh part with strangers soon, so that a test can wait for it.
func hasty(c *Config) { c.AdmitWithin = soon }

func publicHasty(c *Config) {
	public(c)
	hasty(c)
}

// introduce tells every mesh of all.
func introduce(nodes ...*node) {
	var all []Contact
	for _, n := range nodes {
		all = append(all, n.contact())
	}
	for _, n := range nodes {
		n.SetMembers(all)
	}
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still not true after %v: %s", testTimeout, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// serveEcho serves a protocol that echoes until EOF.
func serveEcho(t testing.TB, n *node, proto string, roles ...api.Role) {
	t.Helper()
	l, err := n.Listen(proto, roles...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// echo sends data through a stream and returns what comes back.
func echo(c Conn, data []byte) ([]byte, error) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	errs := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		errs <- errors.Join(err, c.CloseWrite())
	}()
	back, err := io.ReadAll(c)
	return back, errors.Join(err, <-errs)
}

func admittedBoth(a, b *node) func() bool {
	return func() bool {
		_, ab := a.Admitted(b.ID())
		_, ba := b.Admitted(a.ID())
		return ab && ba
	}
}

const protoEcho = "/cloudless/test-echo/1"

func TestStreamBetweenMembers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil, api.RoleNode, api.RoleAnchor)
	introduce(n1, n2)
	serveEcho(t, n2, protoEcho)
	for _, size := range []int{0, 1, 5 << 20} {
		c, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
		if err != nil {
			t.Fatal(err)
		}
		if m := c.Member(); m.ID != n2.ID() || !m.Has(api.RoleAnchor) {
			t.Errorf("member = %+v", m)
		}
		if c.Path() != api.PathLAN || c.RemoteAddr().String() != string(n2.ID()) {
			t.Errorf("path %s, remote %s", c.Path(), c.RemoteAddr())
		}
		data := bytes.Repeat([]byte("x"), size)
		back, err := echo(c, data)
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%d bytes came back as %d: %v", size, len(back), err)
		}
	}
	eventually(t, "the traffic is counted", func() bool {
		p := n1.Peers()
		return len(p) == 1 && p[0].ID == n2.ID() && p[0].Transport != "" && p[0].BytesOut >= 5<<20 && !p[0].Since.IsZero()
	})
	rtt, err := n1.Probe(testContext(t), n2.ID())
	if err != nil || rtt <= 0 {
		t.Fatalf("probe: %v, %v", rtt, err)
	}
	if path, smoothed := n1.Path(n2.ID()); path != api.PathLAN || smoothed != rtt {
		t.Errorf("path %s, rtt %v, want %v", path, smoothed, rtt)
	}
}

func TestDialErrors(t *testing.T) {
	a := newAuthority(t)
	n := a.start(t, nil)
	_, nobody := newKey(t)
	closed := closedPort(t)
	n.SetMembers([]Contact{{ID: nobody, Addresses: []string{closed}}})
	if _, err := n.Dial(testContext(t), nobody, protoEcho); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("a dead peer: %v", err)
	}
	if _, err := n.Dial(testContext(t), n.ID(), protoEcho); api.KindOf(err) != api.KindInvalid {
		t.Errorf("self: %v", err)
	}
	if _, err := n.Dial(testContext(t), "nonsense", protoEcho); api.KindOf(err) != api.KindInvalid {
		t.Errorf("nonsense: %v", err)
	}
	if path, _ := n.Path(nobody); path != api.PathNone {
		t.Errorf("path to a dead peer: %s", path)
	}
}

// closedPort returns a multiaddr on which nothing listens.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	return "/ip4/127.0.0.1/tcp/" + port
}

func TestRoleIsRequired(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	anchor := a.start(t, nil, api.RoleNode, api.RoleAnchor)
	introduce(n1, n2, anchor)
	serveEcho(t, n2, protoEcho, api.RoleAnchor, api.RoleOperator)

	c, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
	if err == nil {
		_, err = echo(c, []byte("let me in"))
	}
	if api.KindOf(err) != api.KindDenied {
		t.Errorf("a node at an anchor's protocol: %v", err)
	}
	if c, err = anchor.Dial(testContext(t), n2.ID(), protoEcho); err == nil {
		_, err = echo(c, []byte("let me in"))
	}
	if err != nil {
		t.Errorf("an anchor: %v", err)
	}
	if _, err := n2.Listen(protoEcho); api.KindOf(err) != api.KindExists {
		t.Errorf("second listener: %v", err)
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	n1, n2 := newAuthority(t).start(t, nil), newAuthority(t).start(t, nil)
	serveEcho(t, n2, protoEcho)
	introduce(n1, n2)
	if _, err := n1.Dial(testContext(t), n2.ID(), protoEcho); api.KindOf(err) != api.KindDenied {
		t.Errorf("err = %v, want denied", err)
	}
	eventually(t, "the connection is closed", func() bool { return len(n2.host.Network().Conns()) == 0 })
	if len(n1.Peers())+len(n2.Peers()) != 0 {
		t.Error("members of two clusters admit each other")
	}
}

func TestCertificateOfSomebodyElse(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	n1.adm.set(n2.adm.Certificate())
	introduce(n1, n2)
	if _, err := n1.Dial(testContext(t), n2.ID(), protoEcho); api.KindOf(err) != api.KindDenied {
		t.Errorf("err = %v, want denied", err)
	}
}

func TestRevokedMemberIsEvicted(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	eventually(t, "admitted", admittedBoth(n1, n2))
	awaitEvent(t, n1, n2.ID(), PeerAdmitted, "")
	a.revoke(n2.ID())
	awaitEvent(t, n1, n2.ID(), PeerGone, ReasonRevoked)
	if _, err := n1.Dial(testContext(t), n2.ID(), protoEcho); err == nil {
		t.Error("a revoked member can be dialled")
	}
	if _, err := n2.Dial(testContext(t), n1.ID(), protoEcho); err == nil {
		t.Error("a revoked member can dial")
	}
}

func awaitEvent(t testing.TB, n *node, id api.NodeID, kind PeerEventKind, reason string) {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		select {
		case e := <-n.Events():
			if e.ID == id && e.Kind == kind {
				if e.Reason != reason {
					t.Errorf("reason %q, want %q", e.Reason, reason)
				}
				return
			}
		case <-timeout:
			t.Fatalf("no event %s of %s", kind, id)
		}
	}
}

func TestStoppedMemberSaysGoodbye(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	eventually(t, "admitted", admittedBoth(n1, n2))
	n2.stop()
	awaitEvent(t, n1, n2.ID(), PeerGone, ReasonGoodbye)
}

func TestEvictedMemberComesBack(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	eventually(t, "admitted", admittedBoth(n1, n2))
	n1.Evict(n2.ID())
	awaitEvent(t, n1, n2.ID(), PeerGone, ReasonEvicted)
	eventually(t, "admitted again", admittedBoth(n1, n2))
}

func TestCertificateIsRenewedInPlace(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	serveEcho(t, n2, protoEcho)
	c, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(2 * time.Hour).Round(0)
	n1.adm.set(a.issue(api.Member{ID: n1.ID(), Roles: []api.Role{api.RoleNode}, NotAfter: end, Serial: "second"}))
	eventually(t, "the peer sees the new certificate", func() bool {
		m, ok := n2.Admitted(n1.ID())
		return ok && m.Serial == "second" && m.NotAfter.Equal(end)
	})
	back, err := echo(c, []byte(" and after"))
	if err != nil || string(back) != "before and after" {
		t.Errorf("the stream was disturbed: %q, %v", back, err)
	}
}

func TestExpiredMemberIsEvicted(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	var end time.Time
	life := soon
	issue := func() {
		end = time.Now().Add(life)
		n2.adm.set(a.issue(api.Member{ID: n2.ID(), Roles: []api.Role{api.RoleNode}, NotAfter: end}))
	}
	issue()
	introduce(n1, n2)
	eventually(t, "admitted", func() bool {
		if _, ok := n1.Admitted(n2.ID()); ok {
			return true
		}
		if time.Now().After(end) { // the machine is busy
			life *= 2
			issue()
		}
		return false
	})
	awaitEvent(t, n1, n2.ID(), PeerGone, ReasonExpired)
}

func TestTopics(t *testing.T) {
	a := newAuthority(t)
	anchor, n1, n2 := a.start(t, public, api.RoleNode, api.RoleAnchor), a.start(t, nil), a.start(t, nil)
	introduce(anchor, n1, n2)
	type message struct {
		from api.NodeID
		text string
	}
	got := make(chan message, 100)
	cancel, err := anchor.Subscribe(api.TopicHeartbeat, func(from api.NodeID, data []byte) { got <- message{from, string(data)} })
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	for _, n := range []*node{n1, n2} { // who only publishes need not subscribe
		eventually(t, "a message arrives", func() bool {
			if err := n.Publish(testContext(t), api.TopicHeartbeat, []byte("alive")); err != nil {
				t.Fatal(err)
			}
			select {
			case m := <-got:
				return m == message{n.ID(), "alive"}
			case <-time.After(50 * time.Millisecond):
				return false
			}
		})
	}
	if err := n1.Publish(testContext(t), api.TopicHeartbeat, make([]byte, maxTopicMessage+1)); api.KindOf(err) != api.KindInvalid {
		t.Errorf("too large: %v", err)
	}
}

func TestMeshNeedsKeyAndAdmission(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no key: accepted")
	}
	key, _ := newKey(t)
	if _, err := New(Config{Key: key}); err == nil {
		t.Error("no admission: accepted")
	}
	adm := &admission{authority: newAuthority(t)}
	if _, err := New(Config{Key: key, Admission: adm, Public: "perhaps"}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("bad public: %v", err)
	}
	if _, err := New(Config{Key: key, Admission: adm, Listen: []string{"0.0.0.0:1"}}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("bad listen: %v", err)
	}
}

func TestTakenPortIsReported(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	key, _ := newKey(t)
	_, err = New(Config{Key: key, Admission: &admission{authority: newAuthority(t)}, NoLAN: true, NoPortMap: true,
		Listen: []string{"/ip4/127.0.0.1/tcp/" + port, "/ip4/127.0.0.1/udp/0/quic-v1"}})
	if api.KindOf(err) != api.KindUnavailable {
		t.Errorf("err = %v, want unavailable", err)
	}
}

func TestAddrs(t *testing.T) {
	n := newAuthority(t).start(t, func(c *Config) {
		c.Announce = []string{"/ip4/1.1.1.1/tcp/4717"}
		c.Listen = append(loopback(), "/ip4/127.0.0.2/tcp/0")
		c.Exclude = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	addrs := strings.Join(n.Addrs(), " ")
	if !strings.Contains(addrs, "/ip4/1.1.1.1/tcp/4717") || strings.Contains(addrs, "127.0.0.2") || !strings.Contains(addrs, "/ip4/127.0.0.1/udp") {
		t.Errorf("addresses = %s", addrs)
	}
}

func TestContactsOfALargeCluster(t *testing.T) {
	_, self := newKey(t)
	id, _ := peer.Decode(string(self))
	var all []Contact
	for i := range 200 {
		_, other := newKey(t)
		all = append(all, Contact{ID: other, Anchor: i < 3})
	}
	c := newContacts(id, all)
	wanted := c.wanted()
	if len(wanted) != 3+neighbours {
		t.Fatalf("%d wanted, want the anchors and %d neighbours", len(wanted), neighbours)
	}
	for _, p := range c.anchors() {
		if !slices.Contains(wanted[:3], p) {
			t.Errorf("anchor %s is not among the first", p)
		}
	}
}
