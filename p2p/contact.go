package p2p

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// maxContactAddrs bounds how many addresses of one member are tried.
const maxContactAddrs = 24

// Contact says how to reach a member.
type Contact struct {
	ID        api.NodeID `json:"id"`
	Addresses []string   `json:"addresses"` // multiaddrs, LAN ones included; a /p2p at the end is allowed
	Relay     bool       `json:"relay"`     // reachable from everywhere, relays for others
	Anchor    bool       `json:"anchor"`
}

// ParseContact reads a multiaddr that ends in /p2p/<peer-id>.
func ParseContact(text string) (Contact, error) {
	addr, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		return Contact{}, api.Invalid("peer", "%q is not a multiaddr: %v", text, err)
	}
	info, err := peer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		return Contact{}, api.Invalid("peer", "%q does not end in /p2p/<peer-id>", text)
	}
	c := Contact{ID: api.NodeID(info.ID.String())}
	for _, a := range info.Addrs {
		c.Addresses = append(c.Addresses, a.String())
	}
	return c, nil
}

// contact is a Contact in libp2p's types.
type contact struct {
	id     peer.ID
	addrs  []multiaddr.Multiaddr
	relay  bool
	anchor bool
}

// parse converts c. Addresses that cannot be read are left out: one member's
// bad report must not cost the others theirs.
func (c Contact) parse() (contact, bool) {
	id, err := peer.Decode(string(c.ID))
	if err != nil {
		return contact{}, false
	}
	out := contact{id: id, relay: c.Relay, anchor: c.Anchor}
	for _, text := range c.Addresses {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil || len(out.addrs) == maxContactAddrs {
			continue
		}
		rest, last := multiaddr.SplitLast(addr)
		if last != nil && last.Protocol().Code == multiaddr.P_P2P && len(rest) > 0 {
			if last.Value() != string(c.ID) {
				continue
			}
			addr = rest
		}
		out.addrs = append(out.addrs, addr)
	}
	return out, true
}

func (c contact) equal(o contact) bool {
	return c.id == o.id && c.relay == o.relay && c.anchor == o.anchor &&
		slices.EqualFunc(c.addrs, o.addrs, multiaddr.Multiaddr.Equal)
}
