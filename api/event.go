package api

import "time"

// EventType groups events for filters.
type EventType string

// The types of event.
const (
	EventMembership EventType = "membership"
	EventScheduling EventType = "scheduling"
	EventRollout    EventType = "rollout"
	EventNetwork    EventType = "network"
	EventStorage    EventType = "storage"
	EventSecurity   EventType = "security"
)

// Code is a stable number for a kind of event; scripts match on it.
type Code string

// The event codes. A code never changes its meaning.
const (
	CodeClusterCreated  Code = "CLD1000"
	CodeNodeJoined      Code = "CLD1001"
	CodeNodeReady       Code = "CLD1002"
	CodeNodeSuspect     Code = "CLD1003"
	CodeNodeDown        Code = "CLD1004"
	CodeNodeLeft        Code = "CLD1005"
	CodeNodeRemoved     Code = "CLD1006"
	CodeNodeCordoned    Code = "CLD1007"
	CodeNodeUncordoned  Code = "CLD1008"
	CodeNodeCutOff      Code = "CLD1009"
	CodeLeaderElected   Code = "CLD1010"
	CodeAnchorAppointed Code = "CLD1011"
	CodeAnchorDismissed Code = "CLD1012"
	CodeClusterRestored Code = "CLD1013"
	CodeAnchorVotes     Code = "CLD1014"
	CodeAnchorHalted    Code = "CLD1015"
	CodeAnchorResumed   Code = "CLD1016"
	CodeRecoveryKeySet  Code = "CLD1017"
	CodeReplicaPlaced   Code = "CLD2001"
	CodeReplicaUnplaced Code = "CLD2002"
	CodeReplicaReady    Code = "CLD2003"
	CodeReplicaRestart  Code = "CLD2004"
	CodeReplicaFailed   Code = "CLD2005"
	CodeReplicaLost     Code = "CLD2006"
	CodeReplicaStopped  Code = "CLD2007"
	CodeWorkloadApplied Code = "CLD2010"
	CodeWorkloadScaled  Code = "CLD2011"
	CodeWorkloadDeleted Code = "CLD2012"
	CodeImageImported   Code = "CLD3001"
	CodeImageRemoved    Code = "CLD3002"
	CodeTokenCreated    Code = "CLD5001"
	CodeTokenUsed       Code = "CLD5002"
	CodeTokenRevoked    Code = "CLD5003"
	CodeOperatorLogin   Code = "CLD5004"

	CodeAuthorityAnnounced Code = "CLD5010"
	CodeAuthorityIssues    Code = "CLD5011"
	CodeAuthorityRetired   Code = "CLD5012"
	CodeAuthorityWithdrawn Code = "CLD5013"
	CodeNodeDuplicated     Code = "CLD5014"
	CodeNodeSingle         Code = "CLD5015"
)

// Object names what an event is about.
type Object struct {
	Kind string `json:"kind"` // node, workload, replica, image, token, cluster
	Name string `json:"name"`
}

// Event is something that happened and that people or scripts want to know.
type Event struct {
	ID      uint64            `json:"id"` // grows; a reader resumes after the last one it saw
	Time    time.Time         `json:"time"`
	Type    EventType         `json:"type"`
	Code    Code              `json:"code"`
	Reason  string            `json:"reason"` // CamelCase, stable
	Object  Object            `json:"object"`
	Message string            `json:"message"`
	Node    NodeID            `json:"node,omitempty"`
	Fields  map[string]string `json:"fields,omitempty"`
}
