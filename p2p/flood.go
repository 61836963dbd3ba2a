package p2p

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
)

const (
	// maxStrangerStreams is how many streams a peer may have open that is not
	// admitted (yet). Hello takes one, identify two, and a member's first streams
	// may overtake the end of its hello by half a round trip.
	maxStrangerStreams = 64
	// fewStreams are enough to become a member. More than these may be had only
	// while all strangers together have less than maxStrangersStreams.
	fewStreams          = 4
	maxStrangersStreams = 1024
	// floodLogEvery is how often the log tells of refused streams.
	floodLogEvery = time.Minute
)

var errTooManyStreams = errors.New("too many streams")

// floodgate is a ResourceManager that tells strangers from members: what a busy
// member needs would let a stranger fill the memory.
type floodgate struct {
	network.ResourceManager
	m         *Mesh
	strangers atomic.Int64 // their streams

	mu      sync.Mutex
	refused int
	quiet   time.Time // no word to the log before
}

// OpenStream implements network.ResourceManager.
func (f *floodgate) OpenStream(p peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	if dir != network.DirInbound {
		return f.ResourceManager.OpenStream(p, dir)
	}
	_, admitted := f.m.admitted(p)
	if !admitted {
		n := f.streamsOf(p)
		if n >= maxStrangerStreams || n >= fewStreams && f.strangers.Load() >= maxStrangersStreams {
			f.refuse(p, "stranger_streams")
			return nil, errTooManyStreams
		}
	}
	scope, err := f.ResourceManager.OpenStream(p, dir)
	if err != nil {
		f.refuse(p, "limit")
		return nil, err
	}
	if admitted {
		return scope, nil
	}
	f.strangers.Add(1)
	return &strangerStream{StreamManagementScope: scope, done: sync.OnceFunc(func() { f.strangers.Add(-1) })}, nil
}

func (f *floodgate) streamsOf(p peer.ID) (n int) {
	_ = f.ViewPeer(p, func(s network.PeerScope) error {
		n = s.Stat().NumStreamsInbound
		return nil
	})
	return n
}

// strangerStream is counted until it ends, or for as long as its peer, admitted
// meanwhile, keeps it.
type strangerStream struct {
	network.StreamManagementScope
	done func()
}

// Done implements network.ResourceScopeSpan.
func (s *strangerStream) Done() {
	s.StreamManagementScope.Done()
	s.done()
}

// refuse counts a stream that was not let in. The log hears of the first, and
// then of how many there were.
func (f *floodgate) refuse(p peer.ID, reason string) {
	f.m.metrics.refused.WithLabelValues("", reason).Inc()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused++
	if now := time.Now(); now.After(f.quiet) {
		f.quiet = now.Add(floodLogEvery)
		f.m.log.Warn("a peer opens more streams than it may", zap.Stringer("peer", p), zap.String("reason", reason), zap.Int("refused", f.refused))
		f.refused = 0
	}
}
