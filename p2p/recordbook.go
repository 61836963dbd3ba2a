package p2p

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxRecords    = 8192 // members whose records are kept
	recordBuckets = 64   // parts of the set that are compared one by one
)

// recordBook holds the newest record of each member, this device's own among
// them, and sums of them by which two members find out what one of them lacks.
type recordBook struct {
	mu      sync.RWMutex
	byID    map[peer.ID]signedRecord
	sums    [recordBuckets]uint64 // of each bucket: the xor of its records' prints
	changed chan struct{}         // closed at the next change
}

func newRecordBook() *recordBook {
	return &recordBook{byID: make(map[peer.ID]signedRecord), changed: make(chan struct{})}
}

// bucketOf spreads members over the buckets by a hash, because PeerIDs begin alike.
func bucketOf(p peer.ID) int {
	sum := sha256.Sum256([]byte(p))
	return int(sum[0]) % recordBuckets
}

// printOf stands for a record in the sum of its bucket. Members compare sums to
// save traffic, not to prove anything: who forges one keeps a record from
// whoever asks him, which he can do without.
func printOf(r signedRecord) uint64 {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(r.peer), r.seq))
	return binary.BigEndian.Uint64(sum[:])
}

// newer reports whether put would take a record.
func (b *recordBook) newer(r signedRecord) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	old, ok := b.byID[r.peer]
	return r.seq > old.seq && (ok || len(b.byID) < maxRecords)
}

// put takes a record unless there is one that is as new, and returns what it
// has replaced.
func (b *recordBook) put(r signedRecord) (old signedRecord, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.byID[r.peer]
	if ok && r.seq <= old.seq || !ok && len(b.byID) >= maxRecords {
		return old, false
	}
	bucket := bucketOf(r.peer)
	if ok {
		b.sums[bucket] ^= printOf(old)
	}
	b.sums[bucket] ^= printOf(r)
	b.byID[r.peer] = r
	b.notify()
	return old, true
}

// drop forgets the records for which gone says so, and returns whose they were.
func (b *recordBook) drop(gone func(signedRecord) bool) []peer.ID {
	var out []peer.ID
	for _, r := range b.all() { // gone may take its time: it is not asked under the lock
		if gone(r) {
			out = append(out, r.peer)
		}
	}
	if len(out) == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range out {
		if r, ok := b.byID[p]; ok {
			b.sums[bucketOf(p)] ^= printOf(r)
			delete(b.byID, p)
		}
	}
	b.notify()
	return out
}

func (b *recordBook) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *recordBook) get(p peer.ID) (signedRecord, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	r, ok := b.byID[p]
	return r, ok
}

func (b *recordBook) size() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.byID)
}

// all returns the records in the order of their owners.
func (b *recordBook) all() []signedRecord {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]signedRecord, 0, len(b.byID))
	for _, r := range b.byID {
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y signedRecord) int { return cmp.Compare(x.peer, y.peer) })
	return out
}

// root stands for the whole book: two that have the same hold the same.
func (b *recordBook) root() []byte {
	sum := sha256.Sum256(b.digest())
	return sum[:8]
}

// digest is the sums of all buckets, one after the other.
func (b *recordBook) digest() []byte {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]byte, 0, 8*recordBuckets)
	for _, sum := range b.sums {
		out = binary.BigEndian.AppendUint64(out, sum)
	}
	return out
}

// watch returns a channel that is closed when the book changes.
func (b *recordBook) watch() <-chan struct{} {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.changed
}
