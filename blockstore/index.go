package blockstore

import (
	"slices"
	"sync"
)

// location says where a leaf is: the n-th of a blob.
type location struct {
	blob *provided
	n    int
}

// index maps leaves to the blobs that contain them. It costs about 150 bytes
// for each MiB that this node provides.
type index struct {
	mu     sync.RWMutex
	blobs  map[string]*provided
	leaves map[hash][]location // one entry per blob, a few when blobs share content
}

func newIndex() *index {
	return &index{blobs: make(map[string]*provided), leaves: make(map[hash][]location)}
}

func (x *index) len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.leaves)
}

func (x *index) add(b *provided) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.blobs[b.digest]; ok {
		return
	}
	x.blobs[b.digest] = b
	for n, h := range b.leaves {
		at := x.leaves[h]
		if len(at) > 0 && at[len(at)-1].blob == b {
			continue // the same leaf again, e.g. a run of zeros
		}
		x.leaves[h] = append(at, location{b, n})
	}
}

// remove reports whether the blob was there.
func (x *index) remove(digest string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	b, ok := x.blobs[digest]
	if !ok {
		return false
	}
	delete(x.blobs, digest)
	for _, h := range b.leaves {
		rest := slices.DeleteFunc(slices.Clone(x.leaves[h]), func(l location) bool { return l.blob == b })
		if len(rest) == 0 {
			delete(x.leaves, h)
		} else {
			x.leaves[h] = rest
		}
	}
	return true
}

// find returns the places of a leaf. The slice is read-only.
func (x *index) find(h hash) []location {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.leaves[h]
}
