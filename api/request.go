package api

import "time"

// ApplyRequest asks for a workload to exist with this spec.
type ApplyRequest struct {
	Name           string
	Labels         map[string]string
	Spec           WorkloadSpec
	DryRun         bool   // validate and report the outcome, change nothing
	ExpectVersion  uint64 // the version the caller read; 0 for whatever it is now
	IdempotencyKey string // a request repeated with its key gets the first answer; "" for none
}

// Outcome says what applying a document did, or with DryRun would do.
type Outcome string

// The outcomes.
const (
	OutcomeCreated   Outcome = "created"
	OutcomeChanged   Outcome = "changed"
	OutcomeUnchanged Outcome = "unchanged"
)

// NodeUpdate changes what operators may change of a node.
type NodeUpdate struct {
	Node          string // name or ID
	Cordoned      *bool  // nil leaves it as it is
	SetLabels     map[string]string
	RemoveLabels  []string
	Drain         bool   // have its replicas replaced elsewhere, until it is uncordoned
	ExpectVersion uint64 // 0 for whatever it is now
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Role Role          // default node
	TTL  time.Duration // default 15 minutes
	Uses int           // default 1
}
