package api

// ClusterView is everything an ordinary node needs to know to go on working
// when every anchor is away: an anchor sends it whole and then what changes, the
// node keeps the last one on disk.
type ClusterView struct {
	Index       uint64       `json:"index"` // Raft index it was read at
	Cluster     Cluster      `json:"cluster"`
	Nodes       []Node       `json:"nodes"`
	Replicas    []Replica    `json:"replicas"` // Spec only on those of the receiving node
	Services    []Service    `json:"services"`
	Images      []Image      `json:"images"` // those that replicas of the receiving node name
	Revocations []Revocation `json:"revocations"`
	Leader      NodeID       `json:"leader,omitempty"`
}

// NodeReport is what a node tells the anchor: everything it knows when it
// (re)connects, then what changed.
type NodeReport struct {
	Node        NodeID          `json:"node"`
	Incarnation uint64          `json:"incarnation"` // start time of the daemon, Unix nanoseconds
	Inventory   *Inventory      `json:"inventory,omitempty"`
	Replicas    []ReplicaReport `json:"replicas,omitempty"`
	Complete    bool            `json:"complete"`         // Replicas lists all there are
	Images      []string        `json:"images,omitempty"` // refs held completely
	Authority   AuthorityUse    `json:"authority,omitzero"`
}
