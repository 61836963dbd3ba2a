package place

import (
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// Request asks for a node for one replica.
type Request struct {
	ID       api.ReplicaID // of the replica to be
	Workload string
	Spec     *api.WorkloadSpec
	Replaces []api.ReplicaID // do not count as neighbours: they go when this one works
}

// wish is a rule that may be broken at a price.
type wish struct {
	rule
	weight float64
	what   string
}

// compiled is a request against a fleet: rules with their arrays at hand.
type compiled struct {
	fleet  *Fleet
	needs  api.Resources
	fits   fits
	rules  []rule // besides fits
	wishes []wish
	total  float64 // weight of all wishes
	spread bool
	domain *counter // of the topology to spread over, nil = none
	same   *counter // the workload's own replicas by node, nil = one replica alone
	spare  int32    // replicas that may share a node before it counts
}

func (f *Fleet) compile(req Request) *compiled {
	spec := req.Spec
	c := &compiled{fleet: f, needs: spec.Resources.Requests(), spread: spec.Placement.Strategy == api.StrategySpread}
	c.fits = fits{f.free, c.needs}
	if img := f.image(spec.Image); img != nil && len(img.Platforms) > 0 {
		c.label(f.archRule(img.Platforms))
	}
	if r := f.taints.rule(api.EffectNoSchedule, spec.Placement.Tolerations); r != nil {
		c.rules = append(c.rules, r)
	}
	for _, a := range spec.Placement.Affinity {
		if a.Required {
			c.label(f.affinity(a))
		}
	}
	for _, a := range spec.Placement.AntiAffinity {
		if a.Required {
			c.rules = append(c.rules, f.apart(req.Workload, a))
		}
	}
	for _, r := range f.repelled[req.Workload] {
		c.rules = append(c.rules, &apart{f.counter(r.workload, r.topology), r.topology, r.workload})
	}
	c.wish(req)
	c.tiers(req)
	return c
}

// label adds a rule on a label, unless every node satisfies it.
func (c *compiled) label(r *labelRule) {
	if slices.Contains(r.good[1:], false) || !r.good[0] && r.column.partial {
		c.rules = append(c.rules, r)
	}
}

func (f *Fleet) apart(workload string, a api.AntiAffinity) *apart {
	from := a.Workload
	if from == "" {
		from = workload
	}
	return &apart{f.counter(from, a.Topology), a.Topology, from}
}

// wish collects what makes up locality: preferred affinity with its weight, and
// with the default weight each of: the image is there, preferred anti-affinity,
// no PreferNoSchedule taint.
func (c *compiled) wish(req Request) {
	f, spec := c.fleet, req.Spec
	add := func(r rule, weight float64, what string) {
		c.wishes = append(c.wishes, wish{r, weight, what})
		c.total += weight
	}
	if h := f.holders(spec.Image); h != nil {
		add(&held{h}, api.DefaultAffinityWeight, "image present")
	}
	for _, a := range spec.Placement.Affinity {
		if !a.Required {
			r := f.affinity(a)
			add(r, float64(a.Weight), r.want)
		}
	}
	for _, a := range spec.Placement.AntiAffinity {
		if !a.Required {
			r := f.apart(req.Workload, a)
			add(r, api.DefaultAffinityWeight, "away from "+r.from)
		}
	}
	if r := f.taints.rule(api.EffectPreferNoSchedule, spec.Placement.Tolerations); r != nil {
		add(r, api.DefaultAffinityWeight, "no taint against it")
	}
}

func (c *compiled) tiers(req Request) {
	spec := req.Spec
	if c.spread {
		by := spec.Placement.SpreadBy
		if by == "" {
			by = api.TopologyNode
		}
		c.domain = c.fleet.counter(req.Workload, by)
	}
	if spec.Replicas > 1 {
		c.same = c.fleet.counter(req.Workload, api.TopologyNode)
		c.spare = int32(max(1, spec.Replicas-spec.MinAvailable()))
	}
}

// tier ranks a node before any score: lower is better, see the package comment.
func (c *compiled) tier(node int32) int32 {
	var same int32
	if c.same != nil {
		same = c.same.at(node)
	}
	if c.domain != nil {
		const nodes = 1 << 12 // more than the replicas of a workload
		return c.domain.at(node)*nodes + same
	}
	return max(0, same-c.spare+1)
}

func (c *compiled) allows(node int32) bool {
	if !c.fits.allows(node) {
		return false
	}
	for _, r := range c.rules {
		if !r.allows(node) {
			return false
		}
	}
	return true
}

func (c *compiled) locality(node int32) float64 {
	if c.total == 0 {
		return unknown
	}
	granted := 0.0
	for i := range c.wishes {
		if c.wishes[i].allows(node) {
			granted += c.wishes[i].weight
		}
	}
	return granted / c.total
}

func (c *compiled) utilisation(node int32) float64 {
	free, whole := &c.fleet.free[node], &c.fleet.whole[node]
	cpu := max(0, float64(free.CPU-c.needs.CPU)*whole.cpu)
	memory := max(0, float64(free.Memory-c.needs.Memory)*whole.memory)
	if c.spread {
		return emptied(cpu, memory)
	}
	return packed(cpu, memory)
}

func (c *compiled) score(node int32) float64 {
	w := &c.fleet.weights
	return w.Locality*c.locality(node) + c.fleet.static[node] + w.Utilisation*c.utilisation(node)
}

func (c *compiled) terms(node int32) Terms {
	s := c.fleet.terms[node]
	return Terms{c.locality(node), s.reliability, s.cost, c.utilisation(node), s.network}
}
