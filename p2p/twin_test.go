package p2p

import (
	"context"
	"crypto/ed25519"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

// gossip is a Twins that remembers.
type gossip struct {
	watches bool

	mu    sync.Mutex
	found []api.NodeID
	told  []string
}

func (g *gossip) Watched() bool { return g.watches }

func (g *gossip) Found(p api.NodeID, addresses []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(addresses) == 2 {
		g.found = append(g.found, p)
	}
}

func (g *gossip) Told(_ api.NodeID, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, address)
}

func (g *gossip) heard() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.found) + len(g.told)
}

func (m *Mesh) instancesOf(id api.NodeID) (conns, instances int) {
	p, _ := peer.Decode(string(id))
	m.adm.mu.Lock()
	defer m.adm.mu.Unlock()
	r := m.adm.records[p]
	if r == nil {
		return 0, 0
	}
	seen := make(map[uint64]bool)
	for _, i := range r.instances {
		seen[i] = true
	}
	return len(r.instances), len(seen)
}

// join starts a mesh that knows the anchor, and returns a way to reach it.
func (a *authority) join(t *testing.T, anchor *node, g *gossip, key ed25519.PrivateKey, id api.NodeID, client bool, roles ...api.Role) (*node, func(context.Context) error) {
	t.Helper()
	n := a.start(t, func(c *Config) {
		c.Key, c.Client, c.Contacts, c.Twins = key, client, []Contact{anchor.contact()}, g
		c.Admission.(*admission).set(a.issue(api.Member{ID: id, Roles: roles, NotAfter: time.Now().Add(time.Hour)}))
	}, roles...)
	return n, func(ctx context.Context) error {
		c, err := n.Dial(ctx, anchor.ID(), api.ProtoAPI)
		if err == nil {
			err = c.Close()
		}
		return err
	}
}

func startAnchor(t *testing.T, a *authority) (*node, *gossip) {
	t.Helper()
	g := &gossip{watches: true}
	anchor := a.start(t, func(c *Config) { c.Public, c.Twins = PublicYes, g }, api.RoleNode, api.RoleAnchor)
	if _, err := anchor.Listen(api.ProtoAPI); err != nil {
		t.Fatal(err)
	}
	return anchor, g
}

func TestTwinsAreFoundAndBothAreTold(t *testing.T) {
	a := newAuthority(t)
	anchor, g := startAnchor(t, a)
	key, id := newKey(t)
	one, two := &gossip{}, &gossip{}
	for _, twin := range []*gossip{one, two} {
		_, reach := a.join(t, anchor, twin, key, id, false, api.RoleNode)
		if err := reach(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the anchor to find the twins", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.Contains(g.found, id)
	})
	for _, twin := range []*gossip{one, two} {
		eventually(t, "both twins to be told", func() bool { return twin.heard() > 0 })
		if !strings.HasPrefix(twin.told[0], "/ip4/127.0.0.1/") {
			t.Errorf("told of a twin at %q", twin.told[0])
		}
	}
}

// A daemon that was killed leaves connections behind that look alive for half a
// minute. Its successor is no twin of it.
func TestRestartIsNoTwin(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor, g := startAnchor(t, a)
	key, id := newKey(t)
	silent, reach := a.join(t, anchor, &gossip{}, key, id, false, api.RoleNode)
	if err := reach(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// From here on it is as if its power were off: nobody answers there.
	silent.host.SetStreamHandler(api.ProtoHello, silent.mute)
	_, reach = a.join(t, anchor, &gossip{}, key, id, false, api.RoleNode)
	if err := reach(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the anchor to have asked the old instance in vain", func() bool {
		_, instances := anchor.instancesOf(id)
		return instances == 1
	})
	if n := g.heard(); n > 0 {
		t.Errorf("a restart was taken for twins %d times", n)
	}
}

func TestTwoCommandsOfOnePersonAreNoTwins(t *testing.T) {
	a := newAuthority(t)
	anchor, g := startAnchor(t, a)
	key, id := newKey(t)
	for range 2 {
		_, reach := a.join(t, anchor, &gossip{}, key, id, true, api.RoleOperator)
		if err := reach(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both to be connected", func() bool { _, n := anchor.instancesOf(id); return n == 2 })
	p, _ := peer.Decode(string(id))
	if ends := anchor.suspectTwins(p, time.Now()); ends != nil || g.heard() > 0 {
		t.Errorf("suspects: %v", ends)
	}
}

// Only anchors are believed: another member could frighten people.
func TestTwinsAreBelievedOfAnchorsAlone(t *testing.T) {
	a := newAuthority(t)
	g := &gossip{}
	victim := a.start(t, func(c *Config) { c.Public, c.Twins = PublicYes, g })
	key, id := newKey(t)
	liar, reach := a.join(t, victim, &gossip{}, key, id, false, api.RoleNode)
	if _, err := victim.Listen(api.ProtoAPI); err != nil {
		t.Fatal(err)
	}
	if err := reach(testContext(t)); err != nil {
		t.Fatal(err)
	}
	p, _ := peer.Decode(string(victim.ID()))
	if err := liar.sayTwin(liar.best(p), "/ip4/192.0.2.1/tcp/1"); err != nil {
		t.Fatal(err)
	}
	liar.adm.set(a.issue(api.Member{ID: liar.ID(), Roles: []api.Role{api.RoleNode, api.RoleAnchor}, NotAfter: time.Now().Add(time.Hour)}))
	eventually(t, "the new certificate to be known", func() bool {
		m, ok := victim.Admitted(liar.ID())
		return ok && m.Has(api.RoleAnchor)
	})
	if n := g.heard(); n > 0 {
		t.Errorf("a node that is no anchor was believed")
	}
	if err := liar.sayTwin(liar.best(p), "/ip4/192.0.2.1/tcp/1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an anchor to be believed", func() bool { return g.heard() == 1 })
}

// mute is a handler that leaves its caller waiting until the mesh ends.
func (n *node) mute(s network.Stream) {
	<-n.Mesh.ctx.Done()
	_ = s.Reset()
}
