package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
)

const (
	keepEvery     = time.Second
	parallelDials = 16
	retryInitial  = time.Second
	retryMax      = 30 * time.Second
	punchRetryMax = 8 * time.Second // a punch fails for want of CPU at one end, too; there are maxPunches
	yieldFirst    = 2 * time.Second // the member with the higher ID lets the other dial first
	retireAfter   = time.Minute     // a relayed connection that a direct one has replaced is kept this long
)

// attempt is when to try something with a peer again.
type attempt struct {
	backoff retry.Backoff
	next    time.Time
	tries   int
	running bool
}

// keeper keeps the wanted members connected, and connected directly.
type keeper struct {
	m       *Mesh
	mu      sync.Mutex
	dials   map[peer.ID]*attempt
	punches map[peer.ID]*attempt
	kick    chan struct{}
}

func newKeeper(m *Mesh) *keeper {
	return &keeper{m: m, dials: make(map[peer.ID]*attempt), punches: make(map[peer.ID]*attempt), kick: make(chan struct{}, 1)}
}

// reset makes the given peers be tried at once, all of them for nil: they are
// new, have moved, or this device has.
func (k *keeper) reset(peers []peer.ID) {
	k.mu.Lock()
	if peers == nil {
		clear(k.dials)
		clear(k.punches)
	}
	for _, p := range peers {
		delete(k.dials, p)
		delete(k.punches, p)
	}
	k.mu.Unlock()
	k.wake()
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) {
	slots := make(chan struct{}, parallelDials)
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		k.round(ctx, slots)
		select {
		case <-tick.C:
		case <-k.kick:
		case <-ctx.Done():
			return
		}
	}
}

// round starts every attempt that is due and for which there is a slot.
func (k *keeper) round(ctx context.Context, slots chan struct{}) {
	wanted := k.m.contacts.wanted()
	first := len(k.m.contacts.relays())
	for i, p := range wanted {
		if k.m.best(p) == nil {
			k.start(ctx, slots, p, i >= first && !k.m.lower(p), task{k.dials, retryMax, k.m.connect})
		}
	}
	for _, s := range k.m.members(nil) {
		if k.m.onlyRelayed(s.id) {
			k.start(ctx, slots, s.id, false, task{k.punches, punchRetryMax, k.m.punch})
		} else {
			k.settle(s.id)
		}
	}
	k.prune(wanted)
}

// settle forgets the failures with a peer that is connected well, and closes
// relayed connections that nothing needs any longer.
func (k *keeper) settle(p peer.ID) {
	k.mu.Lock()
	delete(k.dials, p)
	delete(k.punches, p)
	k.mu.Unlock()
	k.m.retire(p)
}

// task is one of the two things that the keeper tries with a peer.
type task struct {
	table   map[peer.ID]*attempt
	longest time.Duration // between two attempts
	try     func(context.Context, peer.ID) error
}

// start makes an attempt, if one is due and there is a slot.
func (k *keeper) start(ctx context.Context, slots chan struct{}, p peer.ID, yield bool, t task) {
	k.mu.Lock()
	a := t.table[p]
	if a == nil {
		a = &attempt{backoff: retry.Backoff{Initial: retryInitial, Max: t.longest}}
		if yield {
			a.next = time.Now().Add(yieldFirst + rand.N(yieldFirst/2))
		}
		t.table[p] = a
	}
	due := !a.running && !time.Now().Before(a.next)
	if due {
		select {
		case slots <- struct{}{}:
			a.running = true
			a.tries++
		default:
			due = false
		}
	}
	k.mu.Unlock()
	if !due {
		return
	}
	k.m.spawn(func() {
		defer func() { <-slots }()
		tctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		err := t.try(tctx, p)
		k.mu.Lock()
		defer k.mu.Unlock()
		a.running = false
		a.next = time.Now().Add(a.backoff.Next())
		if errors.Is(err, errPunchRests) {
			a.next = time.Now().Add(punchRest)
		}
		if err != nil && ctx.Err() == nil {
			k.m.log.Debug("attempt failed", zap.Stringer("peer", p), zap.Int("tries", a.tries), zap.Error(err))
		}
	})
}

// prune forgets attempts with peers that are wanted no more.
func (k *keeper) prune(wanted []peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.dials) <= len(wanted) {
		return
	}
	for p, a := range k.dials {
		if !a.running && !slices.Contains(wanted, p) {
			delete(k.dials, p)
		}
	}
}

// retire closes relayed connections to a peer that a direct one has replaced
// and that carry nothing but upkeep, which moves by itself.
func (m *Mesh) retire(p peer.ID) {
	conns := m.host.Network().ConnsToPeer(p)
	if best := m.best(p); len(conns) < 2 || best == nil || pathOf(best) == api.PathRelayed {
		return
	}
	for _, c := range conns {
		if pathOf(c) == api.PathRelayed && time.Since(c.Stat().Opened) > retireAfter && idle(c) {
			_ = c.Close()
		}
	}
}

func idle(c network.Conn) bool {
	return !slices.ContainsFunc(c.GetStreams(), func(s network.Stream) bool { return !upkeep(s) })
}
