package place

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// Decision is the node for a replica, and why.
type Decision struct {
	Node     api.NodeID
	Name     string // of the node
	Score    float64
	Terms    Terms
	Feasible int // nodes that could have taken it
	Nodes    int // nodes there are
	granted  []string
}

func (d Decision) String() string {
	s := fmt.Sprintf("best of %d usable nodes of %d, score %.2f (%s)", d.Feasible, d.Nodes, d.Score, d.Terms)
	if len(d.granted) > 0 {
		s += "; " + strings.Join(d.granted, ", ")
	}
	return s
}

// Place decides on a node and reserves the replica's room there. The error is
// of KindUnplaced and sums up why each node is out.
func (f *Fleet) Place(req Request) (Decision, error) {
	d, err := f.decide(req)
	if err == nil {
		f.Reserve(req.ID, req.Workload, req.Spec, d.Node)
	}
	return d, err
}

// decide looks at every node once: it must be allowed, not be of a worse tier
// than the best so far, and then have a better score.
func (f *Fleet) decide(req Request) (Decision, error) {
	c := f.compile(req)
	defer f.ignore(req.Replaces)()
	best, bestTier, bestScore, feasible := int32(-1), int32(math.MaxInt32), 0.0, 0
	for _, node := range f.open {
		if !c.allows(node) {
			continue
		}
		feasible++
		tier := c.tier(node)
		if tier > bestTier {
			continue
		}
		// The first of equals wins: nodes are in order.
		if s := c.score(node); tier < bestTier || s > bestScore {
			best, bestTier, bestScore = node, tier, s
		}
	}
	if best < 0 {
		return Decision{}, f.unplaced(c)
	}
	return Decision{Node: f.nodes[best].ID, Name: f.nodes[best].Inventory.Name, Score: bestScore, Terms: c.terms(best),
		Feasible: feasible, Nodes: len(f.nodes), granted: c.granted(best)}, nil
}

// ignore takes replicas out of the counters of their neighbours and returns the
// function that puts them back. The counters that matter must exist by then.
func (f *Fleet) ignore(ids []api.ReplicaID) (restore func()) {
	add := func(by int32) {
		for _, id := range ids {
			if t := f.tenants[id]; t != nil {
				f.count(t, by)
			}
		}
	}
	add(-1)
	return func() { add(1) }
}

// granted names the wishes that a node fulfils.
func (c *compiled) granted(node int32) []string {
	var out []string
	for _, w := range c.wishes {
		if w.allows(node) {
			out = append(out, w.what)
		}
	}
	return out
}

// unplaced sums up why no node will do: "0 of 4 nodes: 2 lack memory, …".
func (f *Fleet) unplaced(c *compiled) error {
	if len(f.nodes) == 0 {
		return api.Errorf(api.KindUnplaced, "there are no nodes")
	}
	type tally struct {
		fault fault
		n     int
	}
	tallies := map[string]*tally{}
	for i := range f.nodes {
		first := c.faults(int32(i))[0]
		if t := tallies[first.one]; t != nil {
			t.n++
		} else {
			tallies[first.one] = &tally{first, 1}
		}
	}
	all := slices.SortedFunc(maps.Values(tallies), func(a, b *tally) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.fault.one, b.fault.one))
	})
	const most = 5
	parts := make([]string, 0, most+1)
	rest := 0
	for i, t := range all {
		switch {
		case i >= most:
			rest += t.n
		case t.n == 1:
			parts = append(parts, "1 "+t.fault.one)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", t.n, t.fault.many))
		}
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d are out for other reasons", rest))
	}
	return api.Errorf(api.KindUnplaced, "0 of %d nodes: %s", len(f.nodes), strings.Join(parts, ", "))
}

// faults returns everything that speaks against a node, at least one fault of
// a node that is out.
func (c *compiled) faults(node int32) []fault {
	var out []fault
	if why := closed(&c.fleet.nodes[node]); why != "" {
		out = append(out, fault{why, plural(why), why})
	}
	if !c.fits.allows(node) {
		out = append(out, c.fits.fault(node))
	}
	for _, r := range c.rules {
		if !r.allows(node) {
			out = append(out, r.fault(node))
		}
	}
	return out
}

// plural turns "is cordoned" into "are cordoned".
func plural(why string) string {
	if rest, ok := strings.CutPrefix(why, "is "); ok {
		return "are " + rest
	}
	return strings.Replace(why, "runs", "run", 1)
}
