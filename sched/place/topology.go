package place

import (
	"cmp"
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// column holds one label of every node as a small number, so that a rule looks
// up a node in an array.
type column struct {
	of     []int32  // by node
	values []string // by number; number 0 stands for "no such label"
	ids    map[string]int32

	partial bool // some node has no such label
}

// column returns the column of a label. "node" is a topology with one domain
// for each node.
func (f *Fleet) column(key string) *column {
	if c := f.columns[key]; c != nil {
		return c
	}
	c := &column{of: make([]int32, len(f.nodes)), values: []string{""}, ids: map[string]int32{}}
	for i := range f.nodes {
		value, ok := f.nodes[i].Label(key)
		if key == api.TopologyNode {
			value, ok = string(f.nodes[i].ID), true
		}
		if ok {
			c.of[i] = c.number(value)
		} else {
			c.partial = true
		}
	}
	f.columns[key] = c
	return c
}

func (c *column) number(value string) int32 {
	id, ok := c.ids[value]
	if !ok {
		id = int32(len(c.values))
		c.ids[value] = id
		c.values = append(c.values, value)
	}
	return id
}

type counterKey struct{ workload, topology string }

// counter counts the replicas of a workload in each domain of a topology. It is
// what makes affinity and spread cost one look-up for each node.
type counter struct {
	column *column
	in     []int32 // by the column's number
}

// at returns the count in the domain of a node.
func (c *counter) at(node int32) int32 { return c.in[c.column.of[node]] }

// counter returns the counter of a workload, made on first use and kept up to
// date by Reserve and Release from then on.
func (f *Fleet) counter(workload, topology string) *counter {
	key := counterKey{workload, topology}
	if c := f.counters[key]; c != nil {
		return c
	}
	col := f.column(topology)
	c := &counter{column: col, in: make([]int32, len(col.values))}
	for _, t := range f.replicas[workload] {
		c.in[col.of[t.node]]++
	}
	f.counters[key] = c
	f.watched[workload] = append(f.watched[workload], c)
	return c
}

// count adds to all counters of a replica's workload.
func (f *Fleet) count(t *tenant, by int32) {
	for _, c := range f.watched[t.workload] {
		c.in[c.column.of[t.node]] += by
	}
}

// repulsion is a required anti-affinity seen from the other side: replicas of
// workload must not find company in their topology.
type repulsion struct {
	workload, topology string
	demands            int // how often its replicas in the fleet demand it
}

func (r repulsion) compare(o repulsion) int {
	return cmp.Or(cmp.Compare(r.workload, o.workload), cmp.Compare(r.topology, o.topology))
}

// repel adds to the demands of a replica on other workloads to keep away.
func (f *Fleet) repel(t *tenant, by int) {
	for _, rule := range t.apart {
		if !rule.Required || rule.Workload == "" || rule.Workload == t.workload {
			continue
		}
		from, r := f.repelled[rule.Workload], repulsion{workload: t.workload, topology: rule.Topology}
		at, known := slices.BinarySearchFunc(from, r, repulsion.compare)
		if !known { // in order, so that the first fault of a node is always the same
			from = slices.Insert(from, at, r)
		}
		if from[at].demands += by; from[at].demands == 0 {
			from = slices.Delete(from, at, at+1)
		}
		f.repelled[rule.Workload] = from
	}
}
