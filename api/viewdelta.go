package api

import (
	"cmp"
	"reflect"
	"slices"
)

// ViewDelta turns one cluster view into a later one. In a large cluster a view
// is large and its changes are small, so after the first one only deltas travel.
type ViewDelta struct {
	Base    uint64      // Index of the view that it applies to
	Changed ClusterView // Index, Cluster and Leader of the later view, and its rows that are new or changed
	Gone    Gone
}

// Gone names the rows that the later view does not have.
type Gone struct {
	Nodes       []NodeID
	Replicas    []ReplicaID
	Services    []string // names
	Images      []string // refs
	Revocations []string // IDs
}

// DeltaTo returns what turns v into next. Rows that carry a version are taken
// for unchanged while it stays the same.
func (v *ClusterView) DeltaTo(next ClusterView) ViewDelta {
	d := ViewDelta{Base: v.Index, Changed: ClusterView{Index: next.Index, Cluster: next.Cluster, Leader: next.Leader}}
	d.Changed.Nodes, d.Gone.Nodes = diff(v.Nodes, next.Nodes, nodeKey, func(a, b *Node) bool { return a.Version == b.Version })
	d.Changed.Replicas, d.Gone.Replicas = diff(v.Replicas, next.Replicas, replicaKey, func(a, b *Replica) bool { return a.Version == b.Version })
	d.Changed.Services, d.Gone.Services = diff(v.Services, next.Services, serviceKey, func(a, b *Service) bool { return a.Version == b.Version })
	// Whether a node is told the blobs of an image depends on what it runs.
	d.Changed.Images, d.Gone.Images = diff(v.Images, next.Images, imageKey, func(a, b *Image) bool { return reflect.DeepEqual(a, b) })
	d.Changed.Revocations, d.Gone.Revocations = diff(v.Revocations, next.Revocations, revocationKey, func(a, b *Revocation) bool { return *a == *b })
	return d
}

// Empty reports whether the two views differ in nothing but their index.
func (d *ViewDelta) Empty(v *ClusterView) bool {
	c, g := &d.Changed, &d.Gone
	return c.Leader == v.Leader && reflect.DeepEqual(c.Cluster, v.Cluster) &&
		len(c.Nodes)+len(c.Replicas)+len(c.Services)+len(c.Images)+len(c.Revocations) == 0 &&
		len(g.Nodes)+len(g.Replicas)+len(g.Services)+len(g.Images)+len(g.Revocations) == 0
}

// Apply returns the later view; v is left as it is. It fails with KindConflict
// when the delta was made for another view.
func (v *ClusterView) Apply(d ViewDelta) (ClusterView, error) {
	if d.Base != v.Index {
		return ClusterView{}, Errorf(KindConflict, "the change is for the view at index %d, this one is at %d", d.Base, v.Index)
	}
	out := d.Changed
	out.Nodes = merge(v.Nodes, d.Changed.Nodes, d.Gone.Nodes, nodeKey, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.Inventory.Name, b.Inventory.Name), cmp.Compare(a.ID, b.ID))
	})
	out.Replicas = merge(v.Replicas, d.Changed.Replicas, d.Gone.Replicas, replicaKey, func(a, b Replica) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Generation, b.Generation))
	})
	out.Services = merge(v.Services, d.Changed.Services, d.Gone.Services, serviceKey, byKey(serviceKey))
	out.Images = merge(v.Images, d.Changed.Images, d.Gone.Images, imageKey, byKey(imageKey))
	out.Revocations = merge(v.Revocations, d.Changed.Revocations, d.Gone.Revocations, revocationKey, byKey(revocationKey))
	return out, nil
}

func nodeKey(n *Node) NodeID             { return n.ID }
func replicaKey(r *Replica) ReplicaID    { return r.ID }
func serviceKey(s *Service) string       { return s.Name }
func imageKey(i *Image) string           { return i.Ref }
func revocationKey(r *Revocation) string { return r.ID }

func byKey[T any](key func(*T) string) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(key(&a), key(&b)) }
}

// diff returns the rows of next that are new or not the same in old, and the
// keys of those that next does not have.
func diff[T any, K comparable](old, next []T, key func(*T) K, same func(a, b *T) bool) (changed []T, gone []K) {
	before := make(map[K]*T, len(old))
	for i := range old {
		before[key(&old[i])] = &old[i]
	}
	for i := range next {
		k := key(&next[i])
		if was, ok := before[k]; !ok || !same(was, &next[i]) {
			changed = append(changed, next[i])
		}
		delete(before, k)
	}
	for i := range old { // in order, so that equal views make equal deltas
		if k := key(&old[i]); before[k] != nil {
			gone = append(gone, k)
		}
	}
	return changed, gone
}

// merge is diff's inverse. The result is sorted.
func merge[T any, K comparable](old, changed []T, gone []K, key func(*T) K, compare func(a, b T) int) []T {
	if len(changed)+len(gone) == 0 {
		return old
	}
	drop := make(map[K]bool, len(changed)+len(gone))
	for i := range changed {
		drop[key(&changed[i])] = true
	}
	for _, k := range gone {
		drop[k] = true
	}
	out := make([]T, 0, len(old)+len(changed))
	for i := range old {
		if !drop[key(&old[i])] {
			out = append(out, old[i])
		}
	}
	out = append(out, changed...)
	slices.SortFunc(out, compare)
	return out
}
