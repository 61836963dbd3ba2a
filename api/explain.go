package api

// Explanation tells why the replicas of a workload are where they are, or why
// one more would be nowhere.
type Explanation struct {
	Workload string    `json:"workload"`
	Replica  ReplicaID `json:"replica,omitempty"` // "" when asked about the workload
	Summary  string    `json:"summary"`           // one sentence for a person
	Verdicts []Verdict `json:"verdicts"`          // best first
}

// Verdict is what the scheduler thinks of one node for one more replica.
type Verdict struct {
	Node     NodeID             `json:"node"`
	NodeName string             `json:"node_name"`
	Feasible bool               `json:"feasible"`
	Reasons  []string           `json:"reasons,omitempty"` // why filters refused it
	Terms    map[string]float64 `json:"terms,omitempty"`   // of the score
	Total    float64            `json:"total"`
	Chosen   bool               `json:"chosen"` // replicas are, or would be, there
}
