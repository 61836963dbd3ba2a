package p2p

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// shareBurst is for how long a limited relay may run ahead of its limit, and
// for how long a peer that has paused keeps its claim. It bridges what a busy
// machine oversleeps.
const shareBurst = 20 * time.Millisecond

// shares divides what an operator lets a relay carry evenly among the peers
// that have something to send, however many circuits each of them uses. It is
// start-time fair queueing: every piece is stamped with the virtual time at
// which it would be due if its peer were alone with an even share, and pieces
// leave in the order of their stamps, at the pace of the limit.
//
// The nil value limits nothing and costs nothing.
type shares struct {
	pace    *rate.Limiter // bytes
	claim   int64         // bytes that a peer may be behind the others
	arrived chan struct{} // something waits
	done    <-chan struct{}

	mu    sync.Mutex
	queue shareQueue
	due   map[peer.ID]int64 // virtual time at which the next piece of a peer is due
	now   int64             // virtual time: bytes of one even share
	seq   uint64
}

// piece is what a circuit wants to pass on.
type piece struct {
	size    int
	due     int64
	seq     uint64 // pieces due at the same time leave as they came
	granted chan struct{}
}

// newShares returns shares of a number of bytes per second, nil for 0. They
// are given out while run does.
func newShares(ctx context.Context, bytesPerSecond uint64) *shares {
	if bytesPerSecond == 0 {
		return nil
	}
	burst := max(relayBuffer, int(float64(bytesPerSecond)*shareBurst.Seconds()))
	return &shares{
		pace: rate.NewLimiter(rate.Limit(bytesPerSecond), burst), claim: int64(burst),
		arrived: make(chan struct{}, 1), done: ctx.Done(), due: make(map[peer.ID]int64),
	}
}

// take returns when it is the turn of n more bytes of a peer.
func (s *shares) take(from peer.ID, n int) {
	if s == nil || n <= 0 {
		return
	}
	p := &piece{size: n, granted: make(chan struct{})}
	s.mu.Lock()
	s.stamp(p, from)
	heap.Push(&s.queue, p)
	s.mu.Unlock()
	select {
	case s.arrived <- struct{}{}:
	default:
	}
	select {
	case <-p.granted:
	case <-s.done:
	}
}

// stamp says when p is due. The caller holds mu.
func (s *shares) stamp(p *piece, from peer.ID) {
	due, known := s.due[from]
	switch {
	case !known:
		due = s.now
	default:
		due = max(due, s.now-s.claim)
	}
	s.seq++
	p.due, p.seq = due, s.seq
	s.due[from] = due + int64(p.size)
}

// run gives the shares out until ctx ends. A piece goes before it is paid for,
// so that a peer with a single circuit has its next one here in time.
func (s *shares) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		n := s.next()
		if n == 0 {
			select {
			case <-s.arrived:
				continue
			case <-ctx.Done():
				return
			}
		}
		wait := s.pace.ReserveN(time.Now(), n).Delay()
		if wait == 0 {
			continue
		}
		pause.Reset(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// next lets the piece go whose turn it is, and returns its size, 0 without one.
func (s *shares) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.forget()
		return 0
	}
	p := heap.Pop(&s.queue).(*piece)
	s.now = max(s.now, p.due)
	close(p.granted)
	return p.size
}

// forget drops the peers that have no claim any longer, or nothing waiting. The
// caller holds mu, and nothing waits.
func (s *shares) forget() {
	for p, due := range s.due {
		if due <= s.now-s.claim {
			delete(s.due, p)
		}
	}
}

// shareQueue is a heap of pieces, the next one first.
type shareQueue []*piece

func (q shareQueue) Len() int { return len(q) }
func (q shareQueue) Less(i, j int) bool {
	if q[i].due != q[j].due {
		return q[i].due < q[j].due
	}
	return q[i].seq < q[j].seq
}
func (q shareQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *shareQueue) Push(x any)   { *q = append(*q, x.(*piece)) }
func (q *shareQueue) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return p
}
