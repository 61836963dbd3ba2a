package state

import (
	"slices"
	"sync"

	"github.com/hashicorp/go-memdb"

	"github.com/cloudless-project/cloudless/api"
)

// View is the state at one Raft index. It never changes and may be shared by
// goroutines. What its methods return shares memory with the tables: read it,
// do not write to its maps and slices.
type View struct {
	txn    *memdb.Txn
	index  uint64
	common *common
}

// Index is the Raft index of the last entry that the view includes.
func (v View) Index() uint64 { return v.index }

// Cluster returns the cluster's record; false before it was created.
func (v View) Cluster() (api.Cluster, bool) {
	for _, c := range clusters.all(v.txn) {
		return *c, true
	}
	return api.Cluster{}, false
}

// Node returns a node by ID.
func (v View) Node(id api.NodeID) (api.Node, bool) { return value(nodes.get(v.txn, string(id))) }

// NodeByName returns a node by its unique name.
func (v View) NodeByName(name string) (api.Node, bool) {
	return value(nodes.by(v.txn, "name", name))
}

// Nodes returns all nodes, ordered by name.
func (v View) Nodes() []api.Node { return values(nodes.list(v.txn, "name", "")) }

// Token returns the record of a join token.
func (v View) Token(id string) (api.Token, bool) { return value(tokens.get(v.txn, id)) }

// Tokens returns the records of all tokens, expired ones that were not yet
// dropped included.
func (v View) Tokens() []api.Token { return values(tokens.all(v.txn)) }

// Revoked reports whether an identity was revoked.
func (v View) Revoked(id api.NodeID) bool { return revocations.get(v.txn, string(id)) != nil }

// Revocations returns all revocations, ordered by ID.
func (v View) Revocations() []api.Revocation {
	rows := revocations.all(v.txn)
	out := make([]api.Revocation, len(rows))
	for i, r := range rows {
		out[i] = r.Revocation
	}
	return out
}

// Workload returns a workload by name.
func (v View) Workload(name string) (api.Workload, bool) { return value(workloads.get(v.txn, name)) }

// Workloads returns all workloads, ordered by name; those being deleted too.
func (v View) Workloads() []api.Workload { return values(workloads.all(v.txn)) }

// Replica returns a replica by ID.
func (v View) Replica(id api.ReplicaID) (api.Replica, bool) {
	return value(replicas.get(v.txn, string(id)))
}

// Replicas returns all replicas, ordered by workload, slot and generation;
// the last few that ended in each slot are among them.
func (v View) Replicas() []api.Replica { return values(replicas.list(v.txn, "slot", "")) }

// ReplicasOf returns the replicas of a workload, ordered by slot and generation.
func (v View) ReplicasOf(workload string) []api.Replica {
	return values(replicas.list(v.txn, "slot", pair(workload, "")))
}

// ReplicasOn returns the replicas of a node, ended ones too, ordered by ID.
func (v View) ReplicasOn(node api.NodeID) []api.Replica {
	return values(replicas.list(v.txn, "node", pair(string(node), "")))
}

// Assigned returns what a node has to do: its replicas that have not ended,
// to run or to stop as Desired says. A node stops whatever it runs and does
// not find here.
func (v View) Assigned(node api.NodeID) []api.Replica {
	var out []api.Replica
	for _, r := range replicas.list(v.txn, "node", pair(string(node), "")) {
		if !r.State.Terminal() {
			out = append(out, *r)
		}
	}
	return out
}

// Service returns the service of a workload.
func (v View) Service(name string) (api.Service, bool) { return value(services.get(v.txn, name)) }

// Services returns all services, ordered by name.
func (v View) Services() []api.Service { return values(services.all(v.txn)) }

// Image returns an image by its normalised reference.
func (v View) Image(ref string) (api.Image, bool) { return value(images.get(v.txn, ref)) }

// Images returns all images, ordered by reference.
func (v View) Images() []api.Image { return values(images.all(v.txn)) }

// EventsAfter returns at most limit events whose ID is greater than id, in
// order. Older events than the last MaxEvents are gone.
func (v View) EventsAfter(id uint64, limit int) []api.Event {
	if id+1 == 0 || limit <= 0 {
		return nil
	}
	return values(events.from(v.txn, number(id+1), limit))
}

// LastEvent returns the ID of the newest event, 0 when there is none.
func (v View) LastEvent() uint64 {
	if e := events.last(v.txn); e != nil {
		return e.ID
	}
	return 0
}

// Unplaced says why replicas of a workload have no node, "" when all have one.
func (v View) Unplaced(workload string) string {
	if n := notes.get(v.txn, workload); n != nil {
		return n.Reason
	}
	return ""
}

// For returns what a node needs to know to go on working on its own: replicas
// that have not ended, with the spec of its own ones only, and the images that
// those name.
func (v View) For(node, leader api.NodeID) api.ClusterView {
	c := v.common.of(v)
	cluster, _ := v.Cluster()
	out := api.ClusterView{
		Index: v.index, Cluster: cluster, Leader: leader,
		Nodes: c.nodes, Services: c.services, Revocations: c.revocations, Replicas: c.replicas,
	}
	refs := map[string]bool{}
	for _, own := range replicas.list(v.txn, "node", pair(string(node), "")) {
		if own.State.Terminal() {
			continue
		}
		if len(refs) == 0 {
			out.Replicas = slices.Clone(c.replicas)
		}
		refs[own.Spec.Image] = true
		out.Replicas[c.place[own.ID]] = *own
	}
	for _, i := range images.all(v.txn) {
		switch {
		case refs[i.Ref]:
			out.Images = append(out.Images, *i)
		case slices.Contains(i.Holders, node): // so that it notices what was removed or replaced
			out.Images = append(out.Images, api.Image{Ref: i.Ref, Digest: i.Digest})
		}
	}
	return out
}

// common is the part of For that is the same for every node. A change is told
// to all nodes at once, so it is made once.
type common struct {
	once        sync.Once
	nodes       []api.Node
	services    []api.Service
	revocations []api.Revocation
	replicas    []api.Replica         // that have not ended, without their spec
	place       map[api.ReplicaID]int // in replicas
}

func (c *common) of(v View) *common {
	c.once.Do(func() {
		c.nodes, c.services, c.revocations = v.Nodes(), v.Services(), v.Revocations()
		c.place = make(map[api.ReplicaID]int)
		for _, r := range replicas.list(v.txn, "slot", "") {
			if r.State.Terminal() {
				continue
			}
			row := *r
			row.Spec = api.WorkloadSpec{}
			c.place[r.ID] = len(c.replicas)
			c.replicas = append(c.replicas, row)
		}
	})
	return c
}

func value[T any](row *T) (T, bool) {
	if row == nil {
		var zero T
		return zero, false
	}
	return *row, true
}

func values[T any](rows []*T) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = *r
	}
	return out
}
