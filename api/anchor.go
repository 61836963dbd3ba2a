package api

import "time"

// AnchorPolicy says whether a node may hold the authoritative state: what was
// said at its start, unless an operator has decided otherwise.
type AnchorPolicy string

// The policies.
const (
	AnchorAuto   AnchorPolicy = "auto"   // if the cluster needs one and the node is public
	AnchorAlways AnchorPolicy = "always" // an operator wants it to
	AnchorNever  AnchorPolicy = "never"
)

// AnchorStanding is how far a node has come as an anchor.
type AnchorStanding string

// The standings.
const (
	AnchorLeader  AnchorStanding = "leader"
	AnchorVoter   AnchorStanding = "voter"
	AnchorStandby AnchorStanding = "standby" // follows the log without a vote
	AnchorJoining AnchorStanding = "joining" // appointed, does not follow yet
	AnchorLeaving AnchorStanding = "leaving" // is being replaced, or taken out
	AnchorHalted  AnchorStanding = "halted"  // its node is well, its part among the anchors is not
)

// AnchorProgress is what a node says of its own copy of the Raft log.
type AnchorProgress struct {
	Running bool   `json:"running"` // it has one
	Epoch   uint64 `json:"epoch"`
	Applied uint64 `json:"applied"` // index of the last entry in its state
	Leader  NodeID `json:"leader,omitempty"`
	Problem string `json:"problem,omitempty"` // why the part of an anchor does not run
	// Lost tells that its log is gone or damaged. It must not vote, because it has
	// forgotten for whom it did, before the Raft group has taken it out.
	Lost bool `json:"lost,omitempty"`
}

// Snapshot is a sealed copy of the cluster that an ordinary node keeps. It is
// worth nothing without the recovery key.
type Snapshot struct {
	Node      NodeID    `json:"node"` // that keeps it
	NodeName  string    `json:"node_name"`
	Epoch     uint64    `json:"epoch"`
	Index     uint64    `json:"index"` // of the last entry in it
	Size      int64     `json:"size"`  // bytes
	CreatedAt time.Time `json:"created_at"`
	Key       string    `json:"key"` // fingerprint of the recovery key that opens it
}

// AnchorStatus is an anchor as the leader sees it.
type AnchorStatus struct {
	ID        NodeID         `json:"id"`
	Name      string         `json:"name"`
	Standing  AnchorStanding `json:"standing"`
	State     NodeState      `json:"state"`
	Policy    AnchorPolicy   `json:"policy"`
	Reachable bool           `json:"reachable"` // it answered the leader a moment ago
	Applied   uint64         `json:"applied"`
	Behind    uint64         `json:"behind"` // entries
	Epoch     uint64         `json:"epoch"`
	Problem   string         `json:"problem,omitempty"` // of one that is halted

	Authority        AuthorityUse `json:"authority"`         // as it reported
	ClusterAuthority int          `json:"cluster_authority"` // the generation that issues certificates now
}

// AnchorPolicyInForce returns the policy that counts for a node.
func (n *Node) AnchorPolicyInForce() AnchorPolicy {
	if n.AnchorPolicy != "" {
		return n.AnchorPolicy
	}
	if n.Inventory.Anchor != "" {
		return AnchorPolicy(n.Inventory.Anchor)
	}
	return AnchorAuto
}

// HoldsState reports whether a node is an anchor or becomes one.
func (n *Node) HoldsState() bool { return n.Anchor || n.Voter }
