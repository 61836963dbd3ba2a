package api

import "time"

// NodeID is a libp2p PeerID in its text form: the hash of the device's key.
type NodeID string

// NodeState is where a node stands in the cluster.
type NodeState string

// The states of a node.
const (
	NodeJoining  NodeState = "joining"  // enrolled, has not reported its inventory yet
	NodeReady    NodeState = "ready"    // takes work
	NodeSuspect  NodeState = "suspect"  // silent; out of load balancing, nothing moved yet
	NodeCutOff   NodeState = "cut_off"  // its house is offline; each workload's onDisconnect decides
	NodeDown     NodeState = "down"     // dead as far as anybody can tell; its replicas are replaced
	NodeDraining NodeState = "draining" // being emptied on request
	NodeCordoned NodeState = "cordoned" // keeps its work, takes no more
	NodeRemoved  NodeState = "removed"  // its certificate is revoked
)

// Role is what a certificate allows its holder to be.
type Role string

// The roles. The first two are for daemons, the others for people.
const (
	RoleNode     Role = "node"
	RoleAnchor   Role = "anchor"
	RoleOperator Role = "operator"
	RoleViewer   Role = "viewer"
)

// Path says how bytes travel to a peer.
type Path string

// The path classes, best first.
const (
	PathSelf    Path = "self"
	PathLAN     Path = "lan"
	PathDirect  Path = "direct"
	PathRelayed Path = "relayed"
	PathNone    Path = "none"
)

// Rank orders paths, best first.
func (p Path) Rank() int {
	switch p {
	case PathSelf:
		return 0
	case PathLAN:
		return 1
	case PathDirect:
		return 2
	case PathRelayed:
		return 3
	}
	return 4 // no connection yet: it must be dialed first
}

// NAT is the kind of address translation in front of a node.
type NAT string

// The kinds of NAT that matter for hole punching.
const (
	NATNone      NAT = "none"
	NATCone      NAT = "cone"
	NATSymmetric NAT = "symmetric"
	NATUnknown   NAT = "unknown"
)

// Resources is an amount of each thing a node has and a replica takes.
type Resources struct {
	CPU       CPU       `json:"cpu_millis"`
	Memory    Bytes     `json:"memory_bytes"`
	Storage   Bytes     `json:"storage_bytes"`
	Bandwidth Bandwidth `json:"bandwidth_bps"`
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.CPU + o.CPU, r.Memory + o.Memory, r.Storage + o.Storage, r.Bandwidth + o.Bandwidth}
}

// Sub returns r - o; a component may become negative.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.CPU - o.CPU, r.Memory - o.Memory, r.Storage - o.Storage, r.Bandwidth - o.Bandwidth}
}

// Fits reports whether every component of r is at most that of free.
func (r Resources) Fits(free Resources) bool {
	return r.CPU <= free.CPU && r.Memory <= free.Memory && r.Storage <= free.Storage && r.Bandwidth <= free.Bandwidth
}

// Taint keeps replicas that do not tolerate it off a node.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"` // NoSchedule or PreferNoSchedule
}

// Inventory is what a node says of itself when it comes up and when it changes.
type Inventory struct {
	Name         string            `json:"name"`
	Region       string            `json:"region,omitempty"`
	Zone         string            `json:"zone,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"` // those given at node start
	Taints       []Taint           `json:"taints,omitempty"`
	Arch         string            `json:"arch"` // GOARCH
	OS           string            `json:"os"`
	Kernel       string            `json:"kernel,omitempty"`
	Version      string            `json:"version"` // of Cloudless
	Runtime      string            `json:"runtime,omitempty"`
	Worker       bool              `json:"worker"` // runs workloads
	Public       bool              `json:"public"` // reachable from the internet: relays, may be an anchor
	Anchor       string            `json:"anchor"` // auto, never or always
	StorageClass StorageClass      `json:"storage_class,omitempty"`
	Capacity     Resources         `json:"capacity"`            // a bandwidth of 0 is unknown
	Addresses    []string          `json:"addresses,omitempty"` // multiaddrs without /p2p, LAN ones included
	NAT          NAT               `json:"nat"`

	Cgroup          string          `json:"cgroup,omitempty"` // v1 or v2
	GPUs            []GPU           `json:"gpus,omitempty"`
	Power           Power           `json:"power"`
	BandwidthSource BandwidthSource `json:"bandwidth_source,omitempty"`
}

// Node is a device of the cluster as the authoritative state knows it.
type Node struct {
	ID           NodeID            `json:"id"`
	Inventory    Inventory         `json:"inventory"`
	Labels       map[string]string `json:"labels,omitempty"` // set by operators, win over Inventory.Labels
	State        NodeState         `json:"state"`
	Cordoned     bool              `json:"cordoned"`
	Draining     bool              `json:"draining,omitempty"`      // is to be emptied, also while it is out of sight
	Unstable     bool              `json:"unstable,omitempty"`      // came back from a death that was none: suspect until it has been steady
	Anchor       bool              `json:"anchor"`                  // holds a copy of the state, or is about to
	Voter        bool              `json:"voter"`                   // an anchor with a vote
	AnchorPolicy AnchorPolicy      `json:"anchor_policy,omitempty"` // set by operators, wins over Inventory.Anchor
	Subnet       string            `json:"subnet,omitempty"`        // of its containers, CIDR
	CertSerial   string            `json:"cert_serial,omitempty"`
	JoinedAt     time.Time         `json:"joined_at"`
	StateSince   time.Time         `json:"state_since"`
	StateReason  string            `json:"state_reason,omitempty"`
	Incarnation  uint64            `json:"incarnation"` // of the daemon that last reported
	Authority    AuthorityUse      `json:"authority,omitzero"`
	Problem      string            `json:"problem,omitempty"` // what a person has to mend, and how
	Version      uint64            `json:"version"`           // Raft index of the last change
}

// Label returns the node's value for key; "zone", "region", "arch", "os" and
// "name" are answered from the inventory, and so are "storage", "gpu" and
// "power" on a node that has no such label.
func (n *Node) Label(key string) (string, bool) {
	switch key {
	case "zone":
		return n.Inventory.Zone, n.Inventory.Zone != ""
	case "region":
		return n.Inventory.Region, n.Inventory.Region != ""
	case "arch":
		return n.Inventory.Arch, true
	case "os":
		return n.Inventory.OS, true
	case "name":
		return n.Inventory.Name, true
	}
	if v, ok := n.Labels[key]; ok {
		return v, true
	}
	if v, ok := n.Inventory.Labels[key]; ok {
		return v, true
	}
	return n.Inventory.hardware(key)
}

// Peer is another member as this node's transport sees it.
type Peer struct {
	ID        NodeID    `json:"id"`
	Name      string    `json:"name"`
	Path      Path      `json:"path"`
	Transport string    `json:"transport"` // tcp or quic
	Address   string    `json:"address"`
	RTT       float64   `json:"rtt_ms"`
	Since     time.Time `json:"since"`
	BytesIn   uint64    `json:"bytes_in"`
	BytesOut  uint64    `json:"bytes_out"`
}

// NodeStatus is a node as the command line shows it: the record plus what only
// the answering peer knows.
type NodeStatus struct {
	Node
	Roles     []string  `json:"roles"`
	Path      Path      `json:"path"`
	RTT       float64   `json:"rtt_ms"`
	Allocated Resources `json:"allocated"`
	LastSeen  time.Time `json:"last_seen"`
	Replicas  int       `json:"replicas"` // that are on it and have not ended

	AnchorProblem string    `json:"anchor_problem,omitempty"` // why its part among the anchors has halted
	StaleSince    time.Time `json:"stale_since,omitzero"`     // no anchor answered: as of then; else zero
}
