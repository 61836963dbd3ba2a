package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// world stands in for the state and the nodes: it carries out plans, and every
// plan is checked on its way in.
type world struct {
	now       time.Time
	nodes     []api.Node
	workloads []api.Workload
	replicas  []api.Replica
	unplaced  map[string]string
	last      map[string]int // highest generation ever, by workload
}

func newWorld() *world {
	return &world{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), last: map[string]int{}}
}

func (w *world) input() Input {
	return Input{Now: w.now, Nodes: slices.Clone(w.nodes), Workloads: slices.Clone(w.workloads), Replicas: slices.Clone(w.replicas), Unplaced: w.unplaced}
}

func (w *world) node(id string) *api.Node {
	for i := range w.nodes {
		if w.nodes[i].ID == api.NodeID(id) {
			return &w.nodes[i]
		}
	}
	return nil
}

func (w *world) workload(name string) *api.Workload {
	for i := range w.workloads {
		if w.workloads[i].Name == name {
			return &w.workloads[i]
		}
	}
	return nil
}

func (w *world) replica(id api.ReplicaID) *api.Replica {
	for i := range w.replicas {
		if w.replicas[i].ID == id {
			return &w.replicas[i]
		}
	}
	return nil
}

func (w *world) addNode(id string, cpu api.CPU, memory api.Bytes) *api.Node {
	w.nodes = append(w.nodes, api.Node{ID: api.NodeID(id), State: api.NodeReady,
		Inventory: api.Inventory{Name: id, Worker: true, Arch: "amd64", Capacity: api.Resources{CPU: cpu, Memory: memory, Storage: 1 << 40, Bandwidth: 1e9}}})
	return &w.nodes[len(w.nodes)-1]
}

// setNode moves a node; one that is down loses its replicas, as in the state.
func (w *world) setNode(id string, state api.NodeState) {
	n := w.node(id)
	if n == nil {
		panic("no node or replica " + id)
	}
	n.State, n.StateSince, n.Cordoned = state, w.now, state == api.NodeDraining
	w.replicas = slices.DeleteFunc(w.replicas, func(r api.Replica) bool {
		return state == api.NodeDown && r.Node == n.ID && r.Desired == api.DesiredStandby
	})
	for i := range w.replicas {
		if r := &w.replicas[i]; state == api.NodeDown && r.Node == n.ID && !r.State.Terminal() {
			w.move(r, api.ReplicaLost)
		}
	}
}

func (w *world) move(r *api.Replica, to api.ReplicaState) { r.State, r.ChangedAt = to, w.now }

// put applies a workload; the revision grows when more than replicas changes.
func (w *world) put(name string, spec api.WorkloadSpec) {
	spec.SetDefaults()
	if old := w.workload(name); old != nil {
		revision := old.Revision
		was, is := old.Spec, spec
		was.Replicas, is.Replicas = 0, 0
		if fmt.Sprintf("%+v", was) != fmt.Sprintf("%+v", is) || old.Deleted {
			revision++
		}
		old.Spec, old.Revision, old.Deleted = spec, revision, false
		return
	}
	w.workloads = append(w.workloads, api.Workload{Name: name, Spec: spec, Revision: 1})
}

// advance lets a replica take the next step on its node, if that is there.
func (w *world) advance(r *api.Replica) bool {
	n := w.node(string(r.Node))
	if r.State.Terminal() || n == nil || n.State == api.NodeDown || n.State == api.NodeSuspect || n.State == api.NodeCutOff {
		return false
	}
	if r.Desired == api.DesiredStop {
		w.move(r, api.ReplicaStopped)
		return true
	}
	if r.Desired == api.DesiredStandby {
		return false
	}
	next := map[api.ReplicaState]api.ReplicaState{
		api.ReplicaAssigned: api.ReplicaStarting, api.ReplicaStarting: api.ReplicaRunning,
		api.ReplicaRunning: api.ReplicaReady, api.ReplicaNotReady: api.ReplicaReady,
	}[r.State]
	if next == "" {
		return false
	}
	w.move(r, next)
	return true
}

// commit carries out a plan.
func (w *world) commit(p Plan) {
	for _, s := range p.Stop {
		r := w.replica(s.ID)
		r.Desired, r.Reason = api.DesiredStop, s.Reason
	}
	w.replicas = slices.DeleteFunc(w.replicas, func(r api.Replica) bool { return slices.Contains(p.Forget, r.ID) })
	w.replicas = slices.DeleteFunc(w.replicas, func(r api.Replica) bool { return slices.Contains(p.Drop, r.ID) })
	for _, id := range p.Promote {
		w.replica(id).Desired = api.DesiredRun
	}
	w.replicas = append(w.replicas, p.Place...)
	w.unplaced = p.Unplaced
	w.trim()
}

// trim remembers the last three ended generations of each slot, as the state
// does, and buries workloads that are gone.
func (w *world) trim() {
	slices.SortFunc(w.replicas, func(a, b api.Replica) int {
		return cmp.Or(strings.Compare(a.Workload, b.Workload), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Generation, b.Generation))
	})
	ended := map[string]int{}
	for i := len(w.replicas) - 1; i >= 0; i-- {
		r := &w.replicas[i]
		if slot := fmt.Sprint(r.Workload, r.Slot); r.State.Terminal() {
			if ended[slot]++; ended[slot] > 3 {
				w.replicas = slices.Delete(w.replicas, i, i+1)
			}
		}
	}
	w.workloads = slices.DeleteFunc(w.workloads, func(wl api.Workload) bool {
		return wl.Deleted && !slices.ContainsFunc(w.replicas, func(r api.Replica) bool { return r.Workload == wl.Name })
	})
}

// check returns what is wrong with a plan, "" when nothing is.
func (w *world) check(p Plan) string {
	stopped := map[api.ReplicaID]bool{}
	for _, s := range p.Stop {
		if w.replica(s.ID) == nil || stopped[s.ID] {
			return fmt.Sprintf("stops %s, which is not there or stopped twice", s.ID)
		}
		stopped[s.ID] = true
	}
	for _, id := range p.Forget {
		if r := w.replica(id); r == nil || !r.State.Terminal() {
			return fmt.Sprintf("forgets %s, which has not ended", id)
		}
	}
	for _, id := range slices.Concat(p.Promote, p.Drop) {
		if r := w.replica(id); r == nil || r.Desired != api.DesiredStandby {
			return fmt.Sprintf("promotes or drops %s, which is no standby", id)
		}
	}
	for i := range w.workloads {
		if s := w.checkBudget(&w.workloads[i], stopped); s != "" {
			return s
		}
	}
	stays := slices.DeleteFunc(slices.Clone(w.replicas), func(r api.Replica) bool { return slices.Contains(p.Drop, r.ID) })
	all := slices.Concat(stays, p.Place)
	for i := range p.Place {
		if s := w.checkPlacement(&p.Place[i], all, stopped); s != "" {
			return s
		}
	}
	return ""
}

func (w *world) checkBudget(wl *api.Workload, stopped map[api.ReplicaID]bool) string {
	if wl.Deleted {
		return ""
	}
	before, after := 0, 0
	for _, r := range w.replicas {
		n := w.node(string(r.Node))
		if r.Workload != wl.Name || r.State != api.ReplicaReady || r.Desired != api.DesiredRun || n == nil || n.State != api.NodeReady && n.State != api.NodeDraining {
			continue
		}
		before++
		if !stopped[r.ID] {
			after++
		}
	}
	if least := wl.Spec.MinAvailable(); after < before && after < least {
		return fmt.Sprintf("leaves %d of %s serving, minAvailable is %d", after, wl.Name, least)
	}
	return ""
}

func (w *world) checkPlacement(r *api.Replica, all []api.Replica, stopped map[api.ReplicaID]bool) string {
	n := w.node(string(r.Node))
	if n == nil || n.State != api.NodeReady || n.Cordoned || !n.Inventory.Worker {
		return fmt.Sprintf("places %s on %s, which takes no work", r.ID, r.Node)
	}
	used := api.Resources{}
	for i := range all {
		o := &all[i]
		if o.State.Terminal() {
			continue
		}
		if o.Node == r.Node {
			used = used.Add(o.Spec.Resources.Requests())
		}
		on := w.node(string(o.Node))
		sameSlot := o.Workload == r.Workload && o.Slot == r.Slot
		if o.ID != r.ID && sameSlot && o.Revision == r.Revision && o.Desired == api.DesiredRun && !stopped[o.ID] && on.State == api.NodeReady && !on.Cordoned {
			return fmt.Sprintf("places %s beside %s of the same slot and revision", r.ID, o.ID)
		}
		if o.ID != r.ID && !sameSlot {
			if s := tooNear(r, n, o, on); s != "" {
				return s
			}
		}
	}
	if !used.Fits(n.Inventory.Capacity) {
		return fmt.Sprintf("places %s on %s, which then has %+v of %+v", r.ID, r.Node, used, n.Inventory.Capacity)
	}
	for _, a := range r.Spec.Placement.Affinity {
		if v, _ := n.Label(a.Key); a.Required && a.Operator == api.OpIn && !slices.Contains(a.Values, v) {
			return fmt.Sprintf("places %s on %s, against its affinity", r.ID, r.Node)
		}
	}
	for _, t := range n.Inventory.Taints {
		if t.Effect == api.EffectNoSchedule && !slices.ContainsFunc(r.Spec.Placement.Tolerations, func(o api.Toleration) bool { return o.Tolerates(t) }) {
			return fmt.Sprintf("places %s on %s, which has taint %s", r.ID, r.Node, t.Key)
		}
	}
	return ""
}

// tooNear reports a required anti-affinity that two replicas break, whichever
// of them demands it.
func tooNear(r *api.Replica, n *api.Node, o *api.Replica, on *api.Node) string {
	for _, pair := range [][2]*api.Replica{{r, o}, {o, r}} {
		for _, a := range pair[0].Spec.Placement.AntiAffinity {
			from := cmp.Or(a.Workload, pair[0].Workload)
			if !a.Required || from != pair[1].Workload || pair[0] == o && o.Workload == r.Workload {
				continue // among its own, the new revision makes the rules
			}
			va, ok := n.Label(a.Topology)
			vb, _ := on.Label(a.Topology)
			if a.Topology == api.TopologyNode {
				va, vb, ok = string(n.ID), string(on.ID), true
			}
			if ok && va == vb {
				return fmt.Sprintf("places %s on %s, in the same %s as %s", r.ID, r.Node, a.Topology, o.ID)
			}
		}
	}
	return ""
}
