package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/place"
)

// planner makes one plan.
type planner struct {
	in     *Input
	plan   Plan
	fleet  *place.Fleet // made when the first placement needs it
	nodes  map[api.NodeID]*api.Node
	spares int // standbys that there will be
}

func (p *planner) run() {
	p.nodes = make(map[api.NodeID]*api.Node, len(p.in.Nodes))
	for i := range p.in.Nodes {
		p.nodes[p.in.Nodes[i].ID] = &p.in.Nodes[i]
	}
	of := map[string][]*api.Replica{}
	for i := range p.in.Replicas {
		r := &p.in.Replicas[i]
		of[r.Workload] = append(of[r.Workload], r)
	}
	var works []*work
	for _, w := range byName(p.in.Workloads) {
		if w.Deleted {
			p.tearDown(of[w.Name], "the workload was deleted")
		} else {
			works = append(works, p.newWork(w, of[w.Name]))
		}
		delete(of, w.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		p.tearDown(of[name], "the workload is gone")
	}
	for _, k := range works {
		k.scaleDown()
	}
	for _, k := range works { // first everybody gets what is missing, then what is better
		k.fillSlots()
	}
	for _, k := range works {
		k.replaceStale()
		k.takeNote()
	}
	for _, k := range works { // last: what stands by must not take the room of what runs
		k.standBy()
	}
}

// byName orders workloads, so that the plan depends on what there is and not
// on where it stood in the input.
func byName(workloads []api.Workload) []*api.Workload {
	out := make([]*api.Workload, len(workloads))
	for i := range workloads {
		out[i] = &workloads[i]
	}
	slices.SortFunc(out, func(a, b *api.Workload) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (p *planner) tearDown(replicas []*api.Replica, reason string) {
	slices.SortFunc(replicas, func(a, b *api.Replica) int { return cmp.Compare(a.ID, b.ID) })
	for _, r := range replicas {
		switch {
		case r.State.Terminal():
			p.forget(r)
		case r.Desired == api.DesiredStandby:
			p.drop(r)
		case r.Desired == api.DesiredRun:
			p.stop(r, reason)
		}
	}
}

func (p *planner) stop(r *api.Replica, reason string) bool {
	if len(p.plan.Stop) >= maxStop {
		p.wake(p.in.Now)
		return false
	}
	p.plan.Stop = append(p.plan.Stop, StopReplica{r.ID, reason})
	return true
}

func (p *planner) forget(r *api.Replica) {
	if len(p.plan.Forget) >= maxForget {
		p.wake(p.in.Now)
		return
	}
	p.plan.Forget = append(p.plan.Forget, r.ID)
}

// wake asks for a new plan at a time, or earlier.
func (p *planner) wake(at time.Time) {
	if p.plan.Wake.IsZero() || at.Before(p.plan.Wake) {
		p.plan.Wake = at
	}
}

func (p *planner) room() *place.Fleet {
	if p.fleet == nil {
		p.fleet = Fleet(*p.in)
		p.releaseSpares()
	}
	return p.fleet
}

// where sums up what a replica's node means for it.
type where int

const (
	here    where = iota // works
	hidden               // out of sight: leave it alone
	leaving              // is to be emptied
	gone                 // will not come back, as far as anybody can tell
)

func (p *planner) where(r *api.Replica) where {
	n := p.nodes[r.Node]
	switch {
	case n == nil || n.State == api.NodeDown || n.State == api.NodeRemoved:
		return gone
	case n.State == api.NodeDraining:
		return leaving
	case n.State == api.NodeReady || n.State == api.NodeCordoned:
		return here
	}
	return hidden
}
