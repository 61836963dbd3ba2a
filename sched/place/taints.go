package place

import (
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// taintSets numbers the different sets of taints, so that a request looks at
// each set once instead of at the taints of every node. Set 0 is empty.
type taintSets struct {
	of   []int32 // by node
	sets [][]api.Taint
}

func newTaintSets(nodes []api.Node) taintSets {
	s := taintSets{of: make([]int32, len(nodes)), sets: [][]api.Taint{nil}}
	for i := range nodes {
		taints := nodes[i].Inventory.Taints
		at := slices.IndexFunc(s.sets, func(set []api.Taint) bool { return slices.Equal(set, taints) })
		if at < 0 {
			at = len(s.sets)
			s.sets = append(s.sets, taints)
		}
		s.of[i] = int32(at)
	}
	return s
}

// taintRule keeps replicas off nodes with a taint of one effect that they do
// not tolerate.
type taintRule struct {
	of    []int32      // the set of each node
	upset []*api.Taint // by set: the first taint that is not tolerated
}

// rule returns the rule for an effect, nil when no node is concerned.
func (s *taintSets) rule(effect string, tolerations []api.Toleration) *taintRule {
	r := &taintRule{of: s.of, upset: make([]*api.Taint, len(s.sets))}
	concerned := false
	for i, set := range s.sets {
		for j := range set {
			t := &set[j]
			tolerated := slices.ContainsFunc(tolerations, func(o api.Toleration) bool { return o.Tolerates(*t) })
			if t.Effect == effect && !tolerated && r.upset[i] == nil {
				r.upset[i], concerned = t, true
			}
		}
	}
	if !concerned {
		return nil
	}
	return r
}

func (r *taintRule) allows(node int32) bool { return r.upset[r.of[node]] == nil }

func (r *taintRule) fault(node int32) fault {
	t := r.upset[r.of[node]]
	name := t.Key
	if t.Value != "" {
		name += "=" + t.Value
	}
	return fault{"has taint " + name, "have taint " + name, "has the taint " + name + ":" + t.Effect + ", which is not tolerated"}
}
