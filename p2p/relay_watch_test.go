package p2p

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// mum makes a member answer nobody any more, as one whose cable was cut, while
// its connections stay.
func (n *node) mum() {
	n.cut()
	n.host.SetStreamHandler(api.ProtoProbe, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
}

// publicRelays starts members that relay, and returns them with their contacts.
func (a *authority) publicRelays(t *testing.T, count int) (relays []*node, contacts []Contact) {
	t.Helper()
	for i := range count {
		relay := a.start(t, func(c *Config) {
			c.Public, c.Announce = PublicYes, []string{fmt.Sprintf("/ip4/1.1.1.%d/tcp/4717", i+1)}
		}, api.RoleNode, api.RoleAnchor)
		relays, contacts = append(relays, relay), append(contacts, relay.contact())
	}
	return relays, contacts
}

// TestSilentRelaysAreReplaced: a relay dies without a word. Its connections stay
// for as long as libp2p believes in them; a reservation elsewhere is not made to
// wait for that.
func TestSilentRelaysAreReplaced(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	relays, contacts := a.publicRelays(t, relaysPerNode+1)
	n := a.start(t, func(c *Config) { c.Public, c.Contacts = PublicNo, contacts })
	eventually(t, "two relays carry this device", func() bool { return len(reservedAt(n)) == relaysPerNode })

	dead := relays[slices.IndexFunc(relays, func(r *node) bool { return r.host.ID() == reservedAt(n)[0] })]
	dead.mum()
	eventually(t, "another one takes the place of the silent one", func() bool {
		now := reservedAt(n)
		return len(now) == relaysPerNode && !slices.Contains(now, dead.host.ID())
	})
	if n.best(dead.host.ID()) == nil {
		t.Error("the connection to the silent relay was closed: the test shows nothing")
	}
	if !n.deadEnd(multiaddr.StringCast("/p2p/" + string(dead.ID()) + "/p2p-circuit")) {
		t.Error("others are still looked for behind the silent relay")
	}
}

// TestTheOnlyRelayIsKept: with nobody else to turn to, a reservation at a relay that
// is silent is better than none.
func TestTheOnlyRelayIsKept(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	relays, contacts := a.publicRelays(t, 1)
	n := a.start(t, func(c *Config) { c.Public, c.Contacts = PublicNo, contacts })
	eventually(t, "the relay carries this device", func() bool { return len(reservedAt(n)) == 1 })
	relays[0].mum()
	eventually(t, "it is seen to be silent", func() bool { return n.silence(relays[0].host.ID()) > silentBeside })
	if len(reservedAt(n)) != 1 {
		t.Error("the device is told of under no address any more")
	}
}

// TestCircuitsLeaveASilentRelay: two members talk through a relay that dies without
// a word; they meet again at another one.
func TestCircuitsLeaveASilentRelay(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	relays, _ := a.publicRelays(t, 2)
	pair := a.behind(t, relays[0], 2)
	n1, n2 := pair[0], pair[1]
	serveEcho(t, n2, protoEcho)
	through := func(relay *node) func() bool {
		return func() bool {
			c := n1.best(n2.host.ID())
			if c == nil {
				return false
			}
			at, ok := relayIn(c.RemoteMultiaddr())
			return ok && at == relay.host.ID()
		}
	}
	eventually(t, "they are connected through the first relay", through(relays[0]))
	contacts := []Contact{relays[0].contact(), relays[1].contact(), {ID: n1.ID()}, {ID: n2.ID()}}
	for _, n := range []*node{n1, n2, relays[0], relays[1]} {
		n.SetMembers(contacts)
	}
	eventually(t, "both have reserved at both", func() bool { return len(reservedAt(n1)) == 2 && len(reservedAt(n2)) == 2 })
	relays[0].mum()
	eventually(t, "they are connected through the second relay", through(relays[1]))
	reaches(t, n1, n2)
}

// TestRelaysThatCannotBeAskedRest: what fails is tried more and more seldom, and at
// once when the relay has come.
func TestRelaysThatCannotBeAskedRest(t *testing.T) {
	m := newAuthority(t).start(t, nil)
	r, p := newReserver(m.Mesh), m.host.ID()
	rest := func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rest(p)
		return r.pauses[p].until
	}
	first := rest()
	var last time.Time
	for range 10 {
		last = rest()
	}
	if more := last.Sub(first); more < maxRelayAsk/2 {
		t.Errorf("after many failures it rests only %v longer than after the first", more)
	}
	r.note(event.EvtPeerIdentificationCompleted{Peer: p})
	if r.pauses[p] != nil {
		t.Error("it still rests although it has come")
	}
}
