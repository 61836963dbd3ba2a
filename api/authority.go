package api

import "time"

// Authority is one generation of the cluster's certificate authority. The first
// one founded the cluster, and gives it its ID for good; every other was signed
// by the one before it.
type Authority struct {
	Certificate []byte    `json:"certificate"` // DER
	AnnouncedAt time.Time `json:"announced_at"`
	// Urgent shortens the overlap: those before it are retired as soon as every
	// node in sight has a new certificate, and who is away has to join again.
	Urgent      bool      `json:"urgent,omitempty"`
	IssuesSince time.Time `json:"issues_since,omitzero"` // zero: it is announced and issues nothing yet
	RetireAt    time.Time `json:"retire_at,omitzero"`    // at the latest; zero while none succeeds it
	RetiredAt   time.Time `json:"retired_at,omitzero"`   // since then nobody believes its certificates
}

// AuthorityUse is what a node does with the generations of the authority. They
// count from 1; 0 is unknown.
type AuthorityUse struct {
	Certified int `json:"certified"`       // issued the node's certificate
	Knows     int `json:"knows"`           // the newest one that it has heard of
	Holds     int `json:"holds,omitempty"` // on an anchor: the newest one whose key it has
}

// Generations returns the generations of the cluster's authority, the founding
// one first.
func (c *Cluster) Generations() []Authority {
	if len(c.Authorities) > 0 {
		return c.Authorities
	}
	return []Authority{{Certificate: c.CA, AnnouncedAt: c.CreatedAt, IssuesSince: c.CreatedAt}}
}

// IssuingAuthority returns the generation that issues certificates.
func (c *Cluster) IssuingAuthority() int {
	issuer := 1
	for i, a := range c.Authorities {
		if !a.IssuesSince.IsZero() {
			issuer = i + 1
		}
	}
	return issuer
}

// OldestAuthority returns the oldest generation whose certificates count.
func (c *Cluster) OldestAuthority() int {
	oldest := 1
	for i, a := range c.Authorities {
		if !a.RetiredAt.IsZero() {
			oldest = i + 2
		}
	}
	return oldest
}

// AuthorityPhase is how far a change of the authority has come.
type AuthorityPhase string

// The phases. Between two changes the authority is settled.
const (
	AuthoritySettled   AuthorityPhase = "settled"   // one generation counts
	AuthorityAnnounced AuthorityPhase = "announced" // the next one is being made known, the old one issues
	AuthorityIssuing   AuthorityPhase = "issuing"   // the next one issues, nodes renew, old certificates count
)

// AuthorityPhase returns how far the last change of the authority has come.
func (c *Cluster) AuthorityPhase() AuthorityPhase {
	switch {
	case c.IssuingAuthority() < len(c.Authorities):
		return AuthorityAnnounced
	case c.OldestAuthority() < c.IssuingAuthority():
		return AuthorityIssuing
	}
	return AuthoritySettled
}

// AuthorityStatus is the cluster's authority as the leader sees it.
type AuthorityStatus struct {
	Phase       AuthorityPhase        `json:"phase"`
	Generations []AuthorityGeneration `json:"generations"`
	// Waiting says what the next phase waits for, "" when for nothing.
	Waiting string `json:"waiting,omitempty"`
	// Current: every node in sight has a certificate of the newest generation.
	Current bool `json:"current"`
}

// AuthorityGeneration is one generation, and how many nodes have to do with it.
type AuthorityGeneration struct {
	Authority
	Generation int       `json:"generation"`
	NotAfter   time.Time `json:"not_after"`
	Issues     bool      `json:"issues"`
	Known      int       `json:"known"`     // nodes that have heard of it
	Certified  int       `json:"certified"` // nodes whose certificate it issued
	Holders    int       `json:"holders"`   // anchors that hold its key
	Nodes      int       `json:"nodes"`     // in the cluster
}
