package node

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// revocations are the dead identities that this node knows of. They are dead
// for good, so nothing is ever taken back; only when there are more than the
// cluster itself keeps do the oldest make room.
type revocations struct {
	mu      sync.RWMutex
	byID    map[api.NodeID]api.Revocation
	told    map[api.NodeID]bool // those that the topic has brought, to everybody
	held    map[api.NodeID]map[io.Closer]bool
	version uint64 // counts what was learned
}

func newRevocations() *revocations {
	return &revocations{
		byID: make(map[api.NodeID]api.Revocation), told: make(map[api.NodeID]bool),
		held: make(map[api.NodeID]map[io.Closer]bool),
	}
}

func (r *revocations) get(id api.NodeID) (api.Revocation, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known, ok := r.byID[id]
	return known, ok
}

// has reports whether this very revocation is known, signature included.
func (r *revocations) has(one api.Revocation) bool {
	known, ok := r.get(api.NodeID(one.ID))
	return ok && bytes.Equal(known.Signature, one.Signature) && known.At.Equal(one.At) && known.Reason == one.Reason
}

// learn takes revocations in and returns those of identities that were alive.
func (r *revocations) learn(list []api.Revocation) (fresh []api.Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range list {
		id := api.NodeID(one.ID)
		old, known := r.byID[id]
		if !known {
			fresh = append(fresh, one)
		}
		if !known || len(old.Signature) == 0 && len(one.Signature) > 0 {
			r.byID[id] = one
			r.version++
		}
		for c := range r.held[id] {
			c.Close()
		}
		delete(r.held, id)
	}
	r.shed()
	return fresh
}

func (r *revocations) shed() {
	over := len(r.byID) - state.MaxRevocations
	if over <= 0 {
		return
	}
	oldest := slices.SortedFunc(maps.Values(r.byID), func(a, b api.Revocation) int { return a.At.Compare(b.At) })
	for _, one := range oldest[:over] {
		delete(r.byID, api.NodeID(one.ID))
		delete(r.told, api.NodeID(one.ID))
	}
}

// signed returns those that prove themselves, ordered by ID, and a digest of them.
func (r *revocations) signed() (list []api.Revocation, digest [sha256.Size]byte) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, one := range r.byID {
		if len(one.Signature) > 0 {
			list = append(list, one)
		}
	}
	slices.SortFunc(list, byRevokedID)
	h := sha256.New()
	for _, one := range list {
		_, _ = io.WriteString(h, one.ID+"\n")
	}
	return list, [sha256.Size]byte(h.Sum(nil))
}

// news returns the version, by which a reader sees that something was learned.
func (r *revocations) news() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.version
}

// tell notes that everybody was told of a revocation, and reports whether that
// is news.
func (r *revocations) tell(id api.NodeID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told[id] {
		return false
	}
	r.told[id] = true
	return true
}

// hold closes c as soon as an identity is revoked. The returned function lets
// go of it again.
func (r *revocations) hold(id api.NodeID, c io.Closer) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, dead := r.byID[id]; dead {
		c.Close()
		return func() {}
	}
	if r.held[id] == nil {
		r.held[id] = make(map[io.Closer]bool)
	}
	r.held[id][c] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if delete(r.held[id], c); len(r.held[id]) == 0 {
			delete(r.held, id)
		}
	}
}

// complete adds to a view what this node knows beyond it. An anchor that comes
// out of a backup may have forgotten a removal; the nodes have not.
func (r *revocations) complete(v api.ClusterView) api.ClusterView {
	listed := make(map[string]bool, len(v.Revocations))
	for _, one := range v.Revocations {
		listed[one.ID] = true
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := slices.Clone(v.Revocations)
	for _, one := range r.byID {
		if !listed[one.ID] && len(one.Signature) > 0 {
			list = append(list, one)
		}
	}
	if len(list) > len(v.Revocations) {
		slices.SortFunc(list, byRevokedID)
		v.Revocations = list
	}
	return v
}

func byRevokedID(a, b api.Revocation) int { return cmp.Compare(a.ID, b.ID) }
