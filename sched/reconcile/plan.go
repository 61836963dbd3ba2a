package reconcile

import (
	"maps"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/place"
)

// Input is everything a plan depends on: one snapshot of the state, what is
// known beside it, and the time.
type Input struct {
	Index     uint64 // of the snapshot
	Now       time.Time
	Nodes     []api.Node
	Workloads []api.Workload
	Replicas  []api.Replica // with their Spec
	Images    []api.Image   // Ref, Platforms and Holders are read
	Unplaced  map[string]string
	Facts     map[api.NodeID]place.Facts // nil = nothing is known
	Weights   place.Weights              // zero = the defaults
}

// Plan is what to do about it. It was made on the snapshot at Index: whoever
// commits it refuses it when a node, workload or replica that it touches has a
// greater Version.
type Plan struct {
	Index    uint64
	Place    []api.Replica   // new generations, complete but for Version; standbys among them
	Promote  []api.ReplicaID // standbys that are to run now
	Drop     []api.ReplicaID // standbys that are not needed
	Stop     []StopReplica
	Forget   []api.ReplicaID   // ended, and of no use any more
	Unplaced map[string]string // workload → why it has not all it needs; replaces all earlier reasons
	Renoted  bool              // Unplaced differs from that of the input
	Wake     time.Time         // make a new plan then, even if nothing changes; zero = never
}

// StopReplica asks for the end of a replica.
type StopReplica struct {
	ID     api.ReplicaID
	Reason string
}

// Empty reports whether there is nothing to commit.
func (p *Plan) Empty() bool {
	return len(p.Place) == 0 && len(p.Promote) == 0 && len(p.Drop) == 0 && len(p.Stop) == 0 && len(p.Forget) == 0 && !p.Renoted
}

// The bounds of one plan: it becomes one Raft entry. What is left over is for
// the next plan, at once.
const (
	maxPlace  = 512
	maxStop   = 1024
	maxForget = 1024
	maxNotes  = 1024
	maxNote   = 300 // bytes

	// maxStandby bounds the standbys of the whole cluster: when more than that is
	// silent at once, haste would only make it worse.
	maxStandby = 64
)

// Make returns the plan for an input.
func Make(in Input) Plan {
	p := &planner{in: &in, plan: Plan{Index: in.Index, Unplaced: map[string]string{}}}
	p.run()
	p.plan.Renoted = !maps.Equal(p.plan.Unplaced, in.Unplaced)
	return p.plan
}

// Fleet returns the nodes of an input with the replicas that are on them.
func Fleet(in Input) *place.Fleet {
	return place.New(in.Nodes, in.Replicas, place.Options{Facts: in.Facts, Images: in.Images, Weights: in.Weights})
}
