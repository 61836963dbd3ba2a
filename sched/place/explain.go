package place

import (
	"cmp"
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// Verdict is what a node is worth to a request. Of a node that is out, Faults
// says why in words, and the score is what it would have had.
type Verdict struct {
	Node   api.NodeID `json:"node"`
	Name   string     `json:"name"`
	Fits   bool       `json:"fits"`
	Faults []string   `json:"faults,omitempty"`
	Tier   int        `json:"tier"` // 0 = no replica of the workload is in the way; lower comes first
	Score  float64    `json:"score"`
	Terms  Terms      `json:"terms"`
	Grants []string   `json:"grants,omitempty"` // wishes that the node fulfils
}

// Explain returns the verdict on every node, in the order in which they would
// be chosen; those that are out come last. It reserves nothing.
func (f *Fleet) Explain(req Request) []Verdict {
	c := f.compile(req)
	defer f.ignore(req.Replaces)()
	out := make([]Verdict, len(f.nodes))
	for i := range f.nodes {
		node := int32(i)
		v := Verdict{Node: f.nodes[i].ID, Name: f.nodes[i].Inventory.Name, Tier: int(c.tier(node)), Terms: c.terms(node), Grants: c.granted(node)}
		v.Score = f.weights.Score(v.Terms)
		for _, fault := range c.faults(node) {
			v.Faults = append(v.Faults, fault.detail)
		}
		v.Fits = len(v.Faults) == 0
		out[i] = v
	}
	slices.SortStableFunc(out, func(a, b Verdict) int {
		return cmp.Or(order(a.Fits, b.Fits), cmp.Compare(a.Tier, b.Tier), cmp.Compare(b.Score, a.Score))
	})
	return out
}

// order puts true before false.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
