package p2p

import (
	"bytes"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

func noiseOnly() libp2p.Option { return libp2p.Security(noise.ID, noise.New) }

// homes starts a public anchor and two members that know its addresses and not
// each other's, as behind two NATs.
func homes(t testing.TB, a *authority) (anchor, n1, n2 *node) {
	t.Helper()
	return homesOf(t, a, public)
}

// homesOf is homes with an anchor that edit makes public.
func homesOf(t testing.TB, a *authority, edit func(*Config)) (anchor, n1, n2 *node) {
	t.Helper()
	anchor = a.start(t, edit, api.RoleNode, api.RoleAnchor)
	n := a.behind(t, anchor, 2)
	return anchor, n[0], n[1]
}

// behind starts members that reach each other through a relay alone.
func (a *authority) behind(t testing.TB, relay *node, count int) []*node {
	t.Helper()
	return a.behindAt(t, relay, relay.contact(), count)
}

// behindAt is behind with members that reach the relay as a contact says.
func (a *authority) behindAt(t testing.TB, relay *node, contact Contact, count int) []*node {
	t.Helper()
	contact.Relay, contact.Anchor = true, true
	all := []Contact{contact}
	var nodes []*node
	for range count {
		n := a.start(t, func(c *Config) { c.Public = PublicNo; c.Contacts = []Contact{contact} })
		// Loopback has no NAT: what stands for it is that nobody learns an address.
		n.cut()
		nodes, all = append(nodes, n), append(all, Contact{ID: n.ID()})
	}
	for _, n := range append(nodes, relay) {
		n.SetMembers(all)
	}
	return nodes
}

// cut makes a member unreachable but through relays.
func (n *node) cut() {
	for _, a := range n.host.Network().ListenAddresses() {
		if !isRelayed(a) {
			n.host.Network().(interface{ ListenClose(...multiaddr.Multiaddr) }).ListenClose(a)
		}
	}
}

func TestRelayedStream(t *testing.T) {
	anchor, n1, n2 := homes(t, newAuthority(t))
	serveEcho(t, n2, protoEcho)
	eventually(t, "n2 is reached", func() bool {
		c, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
		if err != nil {
			t.Log(err)
			return false
		}
		if c.Path() != api.PathRelayed {
			t.Errorf("path = %s, want relayed", c.Path())
		}
		data := bytes.Repeat([]byte("y"), 1<<20)
		back, err := echo(c, data)
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%d bytes came back as %d: %v", len(data), len(back), err)
		}
		return true
	})
	if path, _ := n1.Path(anchor.ID()); path != api.PathLAN {
		t.Errorf("path to the anchor = %s", path)
	}
	if _, err := n1.Probe(testContext(t), n2.ID()); err != nil {
		t.Errorf("probe by relay: %v", err)
	}
	got := make(chan string, 100)
	cancel, err := n2.Subscribe(api.TopicMembership, func(_ api.NodeID, data []byte) { got <- string(data) })
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	eventually(t, "a topic message arrives", func() bool {
		if err := n1.Publish(testContext(t), api.TopicMembership, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		return len(got) > 0
	})
}

func TestRelayIsForMembers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor, n1, n2 := homes(t, a)
	eventually(t, "n1 and n2 are connected", admittedBoth(n1, n2))
	// A member of another cluster knows the anchor and wants to use its relay.
	thief := newAuthority(t).start(t, func(c *Config) {
		c.Client = true
		c.Contacts = []Contact{anchor.contact(), {ID: n1.ID()}}
	})
	if _, err := thief.Dial(testContext(t), n1.ID(), protoEcho); err == nil {
		t.Error("a stranger was relayed")
	}
}

func TestRelayedBecomesDirect(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor := a.start(t, public, api.RoleNode, api.RoleAnchor)
	private := func(c *Config) { c.Public = PublicNo; c.Contacts = []Contact{anchor.contact()} }
	n1, n2 := a.start(t, private), a.start(t, private)
	eventually(t, "both know the anchor", func() bool { return len(anchor.Peers()) == 2 })
	serveEcho(t, n2, protoEcho)
	// Nobody knows n2's addresses, so it is reached through the anchor; then
	// they become known, and the mesh moves to a direct connection by itself.
	n1.SetMembers([]Contact{anchor.contact(), {ID: n2.ID()}})
	eventually(t, "relayed or better", func() bool { p, _ := n1.Path(n2.ID()); return p != api.PathNone })
	n1.SetMembers([]Contact{anchor.contact(), n2.contact()})
	eventually(t, "direct", func() bool { p, _ := n1.Path(n2.ID()); return p == api.PathLAN })
	c, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
	if err != nil || c.Path() != api.PathLAN {
		t.Fatalf("stream: %v, %v", c, err)
	}
	if back, err := echo(c, []byte("z")); err != nil || string(back) != "z" {
		t.Errorf("%q, %v", back, err)
	}
}
