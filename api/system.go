package api

import "time"

// Version names a build of Cloudless.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Status is where the answering node stands.
type Status struct {
	Node             NodeID    `json:"node"`
	Name             string    `json:"name"`
	Ready            bool      `json:"ready"`            // joined, and its workloads run
	Reason           string    `json:"reason,omitempty"` // why it is not ready
	Cluster          string    `json:"cluster"`          // ID
	ClusterName      string    `json:"cluster_name"`
	Leader           NodeID    `json:"leader,omitempty"` // "" when none is known
	LeaderName       string    `json:"leader_name,omitempty"`
	Anchors          int       `json:"anchors"`
	AnchorsReachable int       `json:"anchors_reachable"` // the node itself included
	Index            uint64    `json:"index"`             // Raft index of the state it acts on
	Time             time.Time `json:"time"`              // by its own clock
}
