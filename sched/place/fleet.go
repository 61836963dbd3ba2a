package place

import (
	"cmp"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Facts is what is known of a node besides its record. They change often and
// stay out of the replicated state.
type Facts struct {
	Reliability float64       // 0–1 from uptime and stability; 0 = unknown, counts as 0.5
	Path        api.Path      // from the anchor; "" = unknown
	RTT         time.Duration // to the anchor; 0 = unknown
}

// Options are what a Fleet needs besides nodes and replicas. The zero value
// works: nothing is known of images, paths and reliability.
type Options struct {
	Facts   map[api.NodeID]Facts
	Images  []api.Image
	Weights Weights // zero = DefaultWeights
}

// Fleet is the state of all nodes while a plan is made.
type Fleet struct {
	weights  Weights
	nodes    []api.Node // ordered by ID, so that ties break the same way everywhere
	byID     map[api.NodeID]int32
	open     []int32 // nodes that take work
	free     []api.Resources
	whole    []perUnit // what one unit of a node's capacity is as a share
	static   []float64 // the score terms that no request changes, weighted
	terms    []staticTerms
	columns  map[string]*column
	counters map[counterKey]*counter
	watched  map[string][]*counter // the counters, by workload
	replicas map[string][]*tenant  // by workload
	tenants  map[api.ReplicaID]*tenant
	repelled map[string][]repulsion // by the workload that must stay away
	images   map[string]*api.Image
	holds    map[string][]bool // by image, of each node
	taints   taintSets
}

// unmeasured is the bandwidth of a node that does not know it: as much as is
// asked for. A node that is new, or alone, would otherwise take nothing that
// asks for some.
const unmeasured = api.Bandwidth(1) << 60

// tenant is a replica that takes up room.
type tenant struct {
	id       api.ReplicaID
	workload string
	node     int32
	needs    api.Resources
	apart    []api.AntiAffinity
}

// New returns the fleet of nodes with the replicas that are on them. It keeps
// the values of nodes and reads replicas only.
func New(nodes []api.Node, replicas []api.Replica, opts Options) *Fleet {
	f := &Fleet{
		weights: opts.Weights.orDefault(), nodes: slices.Clone(nodes),
		byID: make(map[api.NodeID]int32, len(nodes)), free: make([]api.Resources, len(nodes)), whole: make([]perUnit, len(nodes)),
		static: make([]float64, len(nodes)), terms: make([]staticTerms, len(nodes)),
		columns: map[string]*column{}, counters: map[counterKey]*counter{}, watched: map[string][]*counter{},
		replicas: map[string][]*tenant{}, tenants: make(map[api.ReplicaID]*tenant, len(replicas)),
		repelled: map[string][]repulsion{}, images: make(map[string]*api.Image, len(opts.Images)), holds: map[string][]bool{},
	}
	slices.SortFunc(f.nodes, func(a, b api.Node) int { return cmp.Compare(a.ID, b.ID) })
	for i := range f.nodes {
		n := &f.nodes[i]
		f.byID[n.ID] = int32(i)
		f.free[i] = n.Inventory.Capacity
		if f.free[i].Bandwidth == 0 {
			f.free[i].Bandwidth = unmeasured
		}
		f.whole[i] = perUnit{inverse(int64(n.Inventory.Capacity.CPU)), inverse(int64(n.Inventory.Capacity.Memory))}
		if closed(n) == "" {
			f.open = append(f.open, int32(i))
		}
		f.terms[i] = staticTermsOf(n, opts.Facts[n.ID])
		f.static[i] = f.weights.static(f.terms[i])
	}
	f.taints = newTaintSets(f.nodes)
	for i := range opts.Images {
		f.images[opts.Images[i].Ref] = &opts.Images[i]
	}
	for i := range replicas {
		if r := &replicas[i]; !r.State.Terminal() && r.Node != "" {
			f.Reserve(r.ID, r.Workload, &r.Spec, r.Node)
		}
	}
	return f
}

// closed says why a node takes no work, "" when it does.
func closed(n *api.Node) string {
	switch {
	case !n.Inventory.Worker && n.State != api.NodeJoining:
		return "runs no workloads"
	case n.State != api.NodeReady:
		return "is " + string(n.State)
	case n.Cordoned:
		return "is cordoned"
	}
	return ""
}

// Reserve takes up a replica's room on a node. A node that the fleet does not
// know has nothing to reserve.
func (f *Fleet) Reserve(id api.ReplicaID, workload string, spec *api.WorkloadSpec, node api.NodeID) {
	i, ok := f.byID[node]
	if _, taken := f.tenants[id]; !ok || taken {
		return
	}
	t := &tenant{id: id, workload: workload, node: i, needs: spec.Resources.Requests(), apart: spec.Placement.AntiAffinity}
	f.tenants[id] = t
	f.replicas[workload] = append(f.replicas[workload], t)
	f.free[i] = f.free[i].Sub(t.needs)
	f.count(t, 1)
	f.repel(t, 1)
}

// Release gives a replica's room back.
func (f *Fleet) Release(id api.ReplicaID) {
	t := f.tenants[id]
	if t == nil {
		return
	}
	delete(f.tenants, id)
	f.replicas[t.workload] = slices.DeleteFunc(f.replicas[t.workload], func(o *tenant) bool { return o == t })
	f.free[t.node] = f.free[t.node].Add(t.needs)
	f.count(t, -1)
	f.repel(t, -1)
}

// image returns what is known of an image, nil when nothing is.
func (f *Fleet) image(ref string) *api.Image { return f.images[ref] }

// holders returns for each node whether it has the image, nil when nobody has.
func (f *Fleet) holders(ref string) []bool {
	if h, ok := f.holds[ref]; ok {
		return h
	}
	var h []bool
	if img := f.images[ref]; img != nil && len(img.Holders) > 0 {
		h = make([]bool, len(f.nodes))
		for _, id := range img.Holders {
			if i, ok := f.byID[id]; ok {
				h[i] = true
			}
		}
	}
	f.holds[ref] = h
	return h
}
