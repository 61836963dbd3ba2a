package api

import "time"

// LogRequest selects lines that replicas wrote.
type LogRequest struct {
	Target string // a workload (all its replicas) or the ID of a replica
	Follow bool
	Tail   *int      // last lines of each replica; nil for all there are
	Since  time.Time // zero for all there are
}

// LogEntry is a line that a replica wrote.
type LogEntry struct {
	Time    time.Time
	Stream  string // stdout or stderr
	Replica ReplicaID
	Node    string // name of the node
	Data    []byte // one line with its newline, or a part of a very long one
}
