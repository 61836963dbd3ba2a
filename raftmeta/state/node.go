package state

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// containerRange is where the container subnets of the nodes come from, one
// /24 each.
var containerRange = netip.MustParsePrefix("10.214.0.0/15")

// EnrolNode makes a device a node, or renews the certificate of one. Its value
// is the api.Node, with the subnet of its containers and the name it goes by:
// a second "pi" becomes "pi-2".
type EnrolNode struct {
	ID     api.NodeID `json:"id"`
	Name   string     `json:"name"` // as wished; made a DNS label and unique
	Serial string     `json:"serial"`
	Now    time.Time  `json:"now"`
}

func (c EnrolNode) apply(t *tx) (any, error) {
	if err := checkID("id", string(c.ID)); err != nil {
		return nil, err
	}
	if revocations.get(t.txn, string(c.ID)) != nil {
		return nil, api.Errorf(api.KindDenied, "the identity %s was revoked", c.ID).
			WithHint("start the node with a fresh data directory, so that it makes a new identity")
	}
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return t.addNode(c)
	}
	n := *old
	n.CertSerial = clip(c.Serial)
	n.Inventory.Name = t.uniqueName(c.Name, old)
	if n.CertSerial != old.CertSerial || n.Inventory.Name != old.Inventory.Name {
		n.Version = t.index
		nodes.put(t, &n)
	}
	return n, nil
}

func (t *tx) addNode(c EnrolNode) (any, error) {
	known := nodes.all(t.txn)
	if len(known) >= MaxNodes {
		return nil, api.Errorf(api.KindExhausted, "the cluster has %d nodes already", MaxNodes)
	}
	subnet, ok := freeSubnet(known)
	if !ok {
		return nil, api.Errorf(api.KindExhausted, "no container subnet is left in %s", containerRange).
			WithHint("remove nodes that are gone for good")
	}
	n := api.Node{
		ID: c.ID, State: api.NodeJoining, Subnet: subnet, CertSerial: clip(c.Serial),
		JoinedAt: c.Now, StateSince: c.Now, StateReason: "enrolled", Version: t.index,
	}
	n.Inventory.Name = t.uniqueName(c.Name, nil)
	nodes.put(t, &n)
	t.nodeEvent(api.CodeNodeJoined, c.Now, "Enrolled", &n, "node %s joined", n.Inventory.Name)
	return n, nil
}

// freeSubnet returns the lowest /24 that no node has.
func freeSubnet(known []*api.Node) (string, bool) {
	taken := make(map[string]bool, len(known))
	for _, n := range known {
		taken[n.Subnet] = true
	}
	base := containerRange.Addr().As4()
	for i := range 1 << (24 - containerRange.Bits()) {
		addr := netip.AddrFrom4([4]byte{base[0], base[1] + byte(i>>8), byte(i), 0})
		if s := netip.PrefixFrom(addr, 24).String(); !taken[s] {
			return s, true
		}
	}
	return "", false
}

// uniqueName turns a wish ("Anna's Pi") into a DNS label that no other node
// has. A node that already goes by its wish, numbered or not, keeps its name.
func (t *tx) uniqueName(wish string, self *api.Node) string {
	base := label(wish)
	if self != nil {
		if rest, ok := strings.CutPrefix(self.Inventory.Name, base); ok &&
			(rest == "" || strings.Trim(rest, "-0123456789") == "") {
			return self.Inventory.Name
		}
	}
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		if nodes.by(t.txn, "name", name) == nil {
			return name
		}
	}
}

// label makes the nearest DNS label of a text, leaving room for a number.
func label(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	const room = maxName - len("-5000")
	s = strings.Trim(s[:min(len(s), room)], "-")
	if s == "" {
		return "node"
	}
	return s
}

// UpdateNode changes what operators decide about a node: its labels and
// whether it takes new work. Its value is the api.Node.
type UpdateNode struct {
	ID            api.NodeID        `json:"id"`
	SetLabels     map[string]string `json:"set_labels,omitempty"`
	UnsetLabels   []string          `json:"unset_labels,omitempty"`
	Cordon        *bool             `json:"cordon,omitempty"` // nil leaves it; false also ends draining
	ExpectVersion uint64            `json:"expect_version,omitempty"`
	Now           time.Time         `json:"now"`
}

func (c UpdateNode) apply(t *tx) (any, error) {
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return nil, notFound("node", string(c.ID))
	}
	if err := checkVersion("node", old.Inventory.Name, old.Version, c.ExpectVersion); err != nil {
		return nil, err
	}
	n := *old
	n.Labels = edited(old.Labels, c.SetLabels, c.UnsetLabels)
	if err := checkLabels("labels", n.Labels); err != nil {
		return nil, err
	}
	if c.Cordon != nil {
		n.Cordoned = *c.Cordon
		n.Draining = n.Draining && n.Cordoned
		if !n.Cordoned && n.State == api.NodeDraining {
			n.State, n.StateSince, n.StateReason = api.NodeReady, c.Now, "uncordoned"
		}
	}
	if maps.Equal(n.Labels, old.Labels) && n.Cordoned == old.Cordoned && n.Draining == old.Draining && n.State == old.State {
		return *old, nil
	}
	n.Version = t.index
	nodes.put(t, &n)
	switch {
	case n.Cordoned && !old.Cordoned:
		t.nodeEvent(api.CodeNodeCordoned, c.Now, "Cordoned", &n, "node %s takes no new work", n.Inventory.Name)
	case !n.Cordoned && old.Cordoned:
		t.nodeEvent(api.CodeNodeUncordoned, c.Now, "Uncordoned", &n, "node %s takes work again", n.Inventory.Name)
	}
	return n, nil
}

// RemoveNode revokes a node's identity and forgets the node; its replicas are
// lost, its name and subnet are free again.
type RemoveNode struct {
	ID        api.NodeID `json:"id"`
	Reason    string     `json:"reason"`
	Now       time.Time  `json:"now"`
	Signature []byte     `json:"signature,omitempty"` // of the cluster's authority, over the revocation
}

func (c RemoveNode) apply(t *tx) (any, error) {
	n := nodes.get(t.txn, string(c.ID))
	if n == nil {
		return nil, notFound("node", string(c.ID))
	}
	if n.HoldsState() {
		return nil, api.Errorf(api.KindConflict, "node %s is an anchor", n.Inventory.Name).
			WithHint("first: cloudless anchor remove %s", n.Inventory.Name)
	}
	t.revoke(api.Revocation{ID: string(c.ID), Reason: clip(c.Reason), At: c.Now, Signature: c.Signature})
	t.nodeEvent(api.CodeNodeRemoved, c.Now, "Removed", n, "node %s was removed: %s", n.Inventory.Name, c.Reason)
	nodes.delete(t, n)
	t.loseReplicas(n, "node removed", c.Now)
	t.dropHolder(c.ID)
	return nil, nil
}

// SetVoter notes whether a node is an anchor with a vote.
type SetVoter struct {
	ID    api.NodeID `json:"id"`
	Voter bool       `json:"voter"`
	Now   time.Time  `json:"now,omitzero"` // zero records no event
}

func (c SetVoter) apply(t *tx) (any, error) {
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return nil, notFound("node", string(c.ID))
	}
	if old.Voter == c.Voter {
		return *old, nil
	}
	n := *old
	n.Voter, n.Version = c.Voter, t.index
	nodes.put(t, &n)
	switch {
	case c.Now.IsZero():
	case n.Voter:
		t.nodeEvent(api.CodeAnchorVotes, c.Now, "AnchorVotes", &n, "anchor %s has a vote", n.Inventory.Name)
	default:
		t.nodeEvent(api.CodeAnchorVotes, c.Now, "AnchorVotesNot", &n, "anchor %s has no vote any more", n.Inventory.Name)
	}
	return n, nil
}

func (t *tx) nodeEvent(code api.Code, now time.Time, reason string, n *api.Node, format string, args ...any) {
	t.event(code, now, reason, api.Object{Kind: "node", Name: n.Inventory.Name}, n.ID, format, args...)
}
