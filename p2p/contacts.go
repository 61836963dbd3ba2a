package p2p

import (
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// fullMesh is the size up to which every member keeps a connection to every
	// other; beyond, members keep the anchors, the relays and some neighbours,
	// and dial the rest on demand.
	fullMesh   = 60
	neighbours = 16

	maxContacts = 20_000
)

// contacts are the members that are known, and how to reach them. Two sources
// say so: the view of the cluster, which decides who is wanted, and what the
// members have signed of themselves, which is newer when the anchors are away.
// All addresses are tried, those of the records first.
type contacts struct {
	mu      sync.RWMutex
	self    peer.ID
	byID    map[peer.ID]contact // of the view
	heard   map[peer.ID]contact // of the records
	changed chan struct{}       // closed at the next change
}

func newContacts(self peer.ID, known []Contact) *contacts {
	c := &contacts{self: self, heard: make(map[peer.ID]contact), changed: make(chan struct{})}
	c.byID = parseContacts(self, known)
	return c
}

func parseContacts(self peer.ID, known []Contact) map[peer.ID]contact {
	byID := make(map[peer.ID]contact, len(known))
	for _, k := range known {
		if c, ok := k.parse(); ok && c.id != self && len(byID) < maxContacts {
			byID[c.id] = c
		}
	}
	return byID
}

// replace takes over a new list and returns who was added or has moved, and
// who has left.
func (c *contacts) replace(known []Contact) (fresh, left []peer.ID) {
	next := parseContacts(c.self, known)
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, n := range next {
		if old, ok := c.byID[id]; !ok || !old.equal(n) {
			fresh = append(fresh, id)
		}
	}
	for id := range c.byID {
		if _, ok := next[id]; !ok {
			left = append(left, id)
		}
	}
	c.byID = next
	if len(fresh)+len(left) > 0 {
		c.notify()
	}
	return fresh, left
}

func (c *contacts) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// hear takes over what a member's record says, and reports whether it names an
// address that was not known.
func (c *contacts) hear(k contact) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, old := c.merged(k.id), c.heard[k.id]
	c.heard[k.id] = k
	if !old.equal(k) {
		c.notify()
	}
	return slices.ContainsFunc(k.addrs, func(a multiaddr.Multiaddr) bool { return !multiaddr.Contains(before, a) })
}

// unhear forgets what records have said.
func (c *contacts) unhear(gone []peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range gone {
		delete(c.heard, p)
	}
}

// merged returns the addresses of both sources. The caller holds mu.
func (c *contacts) merged(p peer.ID) []multiaddr.Multiaddr {
	out := slices.Clone(c.heard[p].addrs)
	for _, a := range c.byID[p].addrs {
		if !multiaddr.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (c *contacts) watch() <-chan struct{} {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changed
}

// has reports whether the view lists p.
func (c *contacts) has(p peer.ID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.byID[p]
	return ok
}

// knows reports whether p is a member by either source.
func (c *contacts) knows(p peer.ID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.byID[p]
	_, heard := c.heard[p]
	return ok || heard
}

// important reports whether p is an anchor or a relay.
func (c *contacts) important(p peer.ID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[p].relay || c.byID[p].anchor || c.heard[p].relay
}

// addrs returns every address that p is known to have had last.
func (c *contacts) addrs(p peer.ID) []multiaddr.Multiaddr {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.merged(p)
}

// relays returns the members that relay for others, or may. A device that has
// found out that it is public while the anchors are away is among them.
func (c *contacts) relays() []peer.ID {
	out := c.filter(func(k contact) bool { return k.relay || k.anchor || c.heard[k.id].relay })
	c.mu.RLock()
	defer c.mu.RUnlock()
	for id, k := range c.heard {
		if _, listed := c.byID[id]; !listed && k.relay {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// anchor reports whether p is an anchor as far as the view says.
func (c *contacts) anchor(p peer.ID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[p].anchor
}

func (c *contacts) anchors() []peer.ID { return c.filter(func(k contact) bool { return k.anchor }) }

// filter returns those of the view for which keep, which is asked with mu held,
// says so.
func (c *contacts) filter(keep func(contact) bool) []peer.ID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []peer.ID
	for id, k := range c.byID {
		if keep(k) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// wanted returns the members to stay connected to, the important ones first.
func (c *contacts) wanted() []peer.ID {
	first := c.relays()
	others := c.filter(func(k contact) bool { return !k.relay && !k.anchor && !c.heard[k.id].relay })
	if len(others) > fullMesh {
		// The successors of this node on the ring of PeerIDs: everybody has
		// as many, and together they connect the whole ring.
		at, _ := slices.BinarySearch(others, c.self)
		others = slices.Concat(others[at:], others[:at])[:neighbours]
	}
	return append(first, others...)
}

// SetMembers replaces what the mesh knows of the members. It is called
// whenever the view of the cluster changes; the mesh then dials new members,
// reserves at new relays and drops those who left.
func (m *Mesh) SetMembers(members []Contact) {
	fresh, left := m.contacts.replace(members)
	if len(fresh)+len(left) == 0 {
		return
	}
	for _, p := range left {
		m.host.Peerstore().ClearAddrs(p)
	}
	if len(left) > 0 {
		m.dropRecords()
	}
	m.topics.setAnchors(m.contacts.anchors())
	m.pulses.giveUp(func(p peer.ID) bool { return slices.Contains(fresh, p) })
	m.keeper.reset(fresh)
}

// lower says which of two members dials first, so that they rarely do it
// both at once.
func (m *Mesh) lower(p peer.ID) bool { return m.ID() < api.NodeID(p.String()) }
