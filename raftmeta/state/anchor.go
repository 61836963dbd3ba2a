package state

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// SetAnchor appoints a node as an anchor, or dismisses it. Only an appointed
// node gets the role in its certificate, and the authority. Its value is the
// api.Node.
type SetAnchor struct {
	ID     api.NodeID `json:"id"`
	Anchor bool       `json:"anchor"`
	Reason string     `json:"reason"`
	Now    time.Time  `json:"now"`
}

func (c SetAnchor) apply(t *tx) (any, error) {
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return nil, notFound("node", string(c.ID))
	}
	if old.Anchor == c.Anchor {
		return *old, nil
	}
	n := *old
	n.Anchor, n.Version = c.Anchor, t.index
	if !c.Anchor {
		n.Voter = false
	}
	nodes.put(t, &n)
	if c.Anchor {
		t.nodeEvent(api.CodeAnchorAppointed, c.Now, "AnchorAppointed", &n, "node %s becomes an anchor: %s", n.Inventory.Name, clip(c.Reason))
	} else {
		t.nodeEvent(api.CodeAnchorDismissed, c.Now, "AnchorDismissed", &n, "node %s is no anchor any more: %s", n.Inventory.Name, clip(c.Reason))
	}
	return n, nil
}

// SetAnchorPolicy records what an operator decides about a node as an anchor;
// "" leaves it to what the node says of itself. Its value is the api.Node.
type SetAnchorPolicy struct {
	ID     api.NodeID       `json:"id"`
	Policy api.AnchorPolicy `json:"policy"`
}

func (c SetAnchorPolicy) apply(t *tx) (any, error) {
	switch c.Policy {
	case "", api.AnchorAlways, api.AnchorNever:
	default:
		return nil, api.Invalid("policy", "%q is not always or never", clip(string(c.Policy)))
	}
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return nil, notFound("node", string(c.ID))
	}
	if old.AnchorPolicy == c.Policy {
		return *old, nil
	}
	n := *old
	n.AnchorPolicy, n.Version = c.Policy, t.index
	nodes.put(t, &n)
	return n, nil
}

// RestoreCluster puts every earlier anchor out of office and makes one node,
// new or known, the only one, with a vote. It is the first command after a
// backup was restored.
type RestoreCluster struct {
	Epoch  uint64     `json:"epoch"` // greater than the one before
	Anchor api.NodeID `json:"anchor"`
	Name   string     `json:"name"`
	Serial string     `json:"serial"`
	Now    time.Time  `json:"now"`
}

func (c RestoreCluster) apply(t *tx) (any, error) {
	rows := clusters.all(t.txn)
	if len(rows) == 0 {
		return nil, notFound("cluster", "")
	}
	cluster := *rows[0]
	if c.Epoch <= cluster.Epoch {
		return nil, api.Errorf(api.KindConflict, "epoch %d is not later than %d", c.Epoch, cluster.Epoch)
	}
	if _, err := (EnrolNode{ID: c.Anchor, Name: c.Name, Serial: c.Serial, Now: c.Now}).apply(t); err != nil {
		return nil, err
	}
	for _, old := range nodes.all(t.txn) {
		n := *old
		chosen := n.ID == c.Anchor
		if n.HoldsState() {
			n.AnchorPolicy = "" // wanted for what it was
		}
		n.Anchor, n.Voter, n.Version = chosen, chosen, t.index
		n.StateSince = c.Now // nobody has heard of it in this epoch
		nodes.put(t, &n)
	}
	cluster.Epoch, cluster.Version = c.Epoch, t.index
	clusters.put(t, &cluster)
	t.event(api.CodeClusterRestored, c.Now, "Restored", api.Object{Kind: "cluster", Name: cluster.Name}, c.Anchor,
		"cluster %s was restored from a backup; %s is its only anchor", cluster.Name, c.Name)
	return cluster, nil
}
