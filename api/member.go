package api

import (
	"slices"
	"time"
)

// Member is what a verified membership certificate says of its holder.
type Member struct {
	ID       NodeID
	Cluster  string // cluster ID
	Roles    []Role
	Operator string // name of the person, "" for a node
	Serial   string
	NotAfter time.Time
	Lapsed   bool // the certificate has ended: all that it is good for is to renew it
	// Authority is the generation of the cluster's authority that issued the
	// certificate, from 1.
	Authority int
}

// Has reports whether the member holds a role.
func (m *Member) Has(r Role) bool { return slices.Contains(m.Roles, r) }

// The protocols of the mesh.
const (
	ProtoEnrol = "/cloudless/enroll/1"
	ProtoHello = "/cloudless/hello/1"
	ProtoAPI   = "/cloudless/api/1"
	ProtoRaft  = "/cloudless/raft/1"
	ProtoProbe = "/cloudless/probe/1"
	ProtoFlow  = "/cloudless/flow/1"
	ProtoBlock = "/cloudless/block/1"
	ProtoGauge = "/cloudless/gauge/1" // bandwidth is measured

	ProtoRecords = "/cloudless/records/1"

	ProtoRevocations = "/cloudless/revocations/1"
)

// The topics of the mesh.
const (
	TopicHeartbeat  = "heartbeat"
	TopicMembership = "membership"
	TopicRecords    = "records"
)
