package p2p

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// reservedAt returns the relays through which a member says that it is reached.
func reservedAt(n *node) []peer.ID {
	var out []peer.ID
	for _, text := range n.Addrs() {
		if a := multiaddr.StringCast(text); isRelayed(a) {
			if relay, err := a.ValueForProtocol(multiaddr.P_P2P); err == nil {
				id, _ := peer.Decode(relay)
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestReservationsFollowTheRelays: a device reserves at two relays of several,
// at another one when it loses one, and says so in its addresses.
func TestReservationsFollowTheRelays(t *testing.T) {
	a := newAuthority(t)
	var relays []*node
	var contacts []Contact
	for i := range relaysPerNode + 1 {
		relay := a.start(t, func(c *Config) {
			c.Public, c.Announce = PublicYes, []string{fmt.Sprintf("/ip4/1.1.1.%d/tcp/4717", i+1)}
		}, api.RoleNode, api.RoleAnchor)
		relays, contacts = append(relays, relay), append(contacts, relay.contact())
	}
	// An anchor that relays for nobody is asked for nothing.
	idle := a.start(t, nil, api.RoleNode, api.RoleAnchor)
	contact := idle.contact()
	contact.Anchor = true
	n := a.start(t, func(c *Config) { c.Public, c.Contacts = PublicNo, append(contacts, contact) })

	var first []peer.ID
	eventually(t, "two relays carry this device", func() bool {
		first = reservedAt(n)
		return len(first) == relaysPerNode
	})
	for _, relay := range relays {
		if relay.host.ID() == first[0] {
			relay.stop()
		}
	}
	eventually(t, "another one takes the place of the one that stopped", func() bool {
		now := reservedAt(n)
		return len(now) == relaysPerNode && !slices.Contains(now, first[0]) && slices.Contains(now, first[1])
	})
	if slices.Contains(reservedAt(n), idle.host.ID()) {
		t.Error("an anchor that does not relay counts as a relay")
	}
}

// TestReservationsAreRenewed: before its end a reservation is made again, and a
// relay that refuses that is left alone for a while.
func TestReservationsAreRenewed(t *testing.T) {
	a := newAuthority(t)
	relay := a.start(t, public, api.RoleNode, api.RoleAnchor)
	n := a.start(t, func(c *Config) { c.Public, c.Contacts = PublicNo, []Contact{relay.contact()} })
	r, id := n.reserver, relay.host.ID()
	end := func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.held[id]
	}
	eventually(t, "the relay holds a reservation", func() bool { return !end().IsZero() })
	r.mu.Lock()
	r.held[id] = time.Now().Add(reserveAhead / 2)
	r.mu.Unlock()
	r.wake()
	eventually(t, "it is renewed", func() bool { return time.Until(end()) > reserveAhead })

	r.doubt(id)
	eventually(t, "it is made again when a connection has ended", func() bool { return time.Until(end()) > reserveAhead })

	relay.stopRelay()
	r.mu.Lock()
	r.held[id] = time.Now().Add(reserveAhead / 2)
	r.mu.Unlock()
	r.wake()
	eventually(t, "a relay that refuses is held no longer", func() bool { return end().IsZero() })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused[id].IsZero() {
		t.Error("the relay is asked again at once")
	}
}
