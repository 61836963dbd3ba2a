package api

import (
	"bytes"
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
	d.Changed.Nodes, d.Gone.Nodes = nodeRows.diff(v.Nodes, next.Nodes)
	d.Changed.Replicas, d.Gone.Replicas = replicaRows.diff(v.Replicas, next.Replicas)
	d.Changed.Services, d.Gone.Services = serviceRows.diff(v.Services, next.Services)
	d.Changed.Images, d.Gone.Images = imageRows.diff(v.Images, next.Images)
	d.Changed.Revocations, d.Gone.Revocations = revocationRows.diff(v.Revocations, next.Revocations)
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
	out.Nodes = nodeRows.merge(v.Nodes, d.Changed.Nodes, d.Gone.Nodes)
	out.Replicas = replicaRows.merge(v.Replicas, d.Changed.Replicas, d.Gone.Replicas)
	out.Services = serviceRows.merge(v.Services, d.Changed.Services, d.Gone.Services)
	out.Images = imageRows.merge(v.Images, d.Changed.Images, d.Gone.Images)
	out.Revocations = revocationRows.merge(v.Revocations, d.Changed.Revocations, d.Gone.Revocations)
	return out, nil
}

// rows says how one of a view's lists is ordered, and when two of its rows with
// equal keys are the same.
type rows[T any, K cmp.Ordered] struct {
	key     func(*T) K
	compare func(a, b *T) int
	same    func(a, b *T) bool
}

var (
	nodeRows = rows[Node, NodeID]{
		key: func(n *Node) NodeID { return n.ID },
		compare: func(a, b *Node) int {
			return cmp.Or(cmp.Compare(a.Inventory.Name, b.Inventory.Name), cmp.Compare(a.ID, b.ID))
		},
		same: func(a, b *Node) bool { return a.Version == b.Version },
	}
	replicaRows = rows[Replica, ReplicaID]{
		key: func(r *Replica) ReplicaID { return r.ID },
		compare: func(a, b *Replica) int {
			return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Generation, b.Generation))
		},
		same: func(a, b *Replica) bool { return a.Version == b.Version },
	}
	serviceRows = byKey(func(s *Service) string { return s.Name }, func(a, b *Service) bool { return a.Version == b.Version })
	// Whether a node is told the blobs of an image depends on what it runs.
	imageRows      = byKey(func(i *Image) string { return i.Ref }, func(a, b *Image) bool { return reflect.DeepEqual(a, b) })
	revocationRows = byKey(func(r *Revocation) string { return r.ID }, sameRevocation)
)

func sameRevocation(a, b *Revocation) bool {
	return a.At.Equal(b.At) && a.Reason == b.Reason && bytes.Equal(a.Signature, b.Signature)
}

func byKey[T any](key func(*T) string, same func(a, b *T) bool) rows[T, string] {
	return rows[T, string]{key: key, compare: func(a, b *T) int { return cmp.Compare(key(a), key(b)) }, same: same}
}

// diff returns the rows of next that are new or not the same in old, and the
// keys of those that next does not have at their place. Both are in order: an
// anchor does this for every node at every change, so it is one walk along both.
func (r rows[T, K]) diff(old, next []T) (changed []T, gone []K) {
	i, j := 0, 0
	for i < len(old) || j < len(next) {
		order := 0
		switch {
		case i == len(old):
			order = 1
		case j == len(next):
			order = -1
		default:
			order = r.compare(&old[i], &next[j])
		}
		if order < 0 {
			gone = append(gone, r.key(&old[i]))
		} else if order > 0 || !r.same(&old[i], &next[j]) {
			changed = append(changed, next[j])
		}
		if order <= 0 {
			i++
		}
		if order >= 0 {
			j++
		}
	}
	return changed, gone
}

// merge is diff's inverse. A row that moved is among the gone ones and among
// the changed ones, and stays.
func (r rows[T, K]) merge(old, changed []T, gone []K) []T {
	if len(changed)+len(gone) == 0 {
		return old
	}
	drop := make(map[K]bool, len(changed)+len(gone))
	for i := range changed {
		drop[r.key(&changed[i])] = true
	}
	for _, k := range gone {
		drop[k] = true
	}
	out := make([]T, 0, len(old)+len(changed))
	for i := range old {
		if !drop[r.key(&old[i])] {
			out = append(out, old[i])
		}
	}
	out = append(out, changed...)
	slices.SortFunc(out, func(a, b T) int { return r.compare(&a, &b) })
	return out
}
