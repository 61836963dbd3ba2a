package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/internal/retry"
)

const (
	relaysPerNode = 2
	maxCandidates = 20               // relays that are tried at once
	maxCircuitsOf = 50               // addresses that are told of one relay
	relayRetry    = 15 * time.Second // pause after a relay refused
	relayAsk      = 2 * time.Second  // pause after a relay could not be asked; it doubles each time …
	maxRelayAsk   = 30 * time.Second // … up to this, and ends when the relay is connected
	reserveWithin = 20 * time.Second // to connect and to reserve
	answerWithin  = 5 * time.Second  // to answer: a relay that is dead must not keep others from being asked
	reserveAhead  = 2 * time.Minute  // of its end, a reservation is renewed
)

var (
	errNoRelay = errors.New("not a relay") // it cannot be reached, or does not relay
	errEnough  = errors.New("there are enough relays by now")
)

// reserver keeps reservations at relays, so that others reach this device
// through them. libp2p's AutoRelay does the same for a public network, where
// relays are many and unknown; it counts its relays without holding their lock.
type reserver struct {
	m     *Mesh
	woken chan struct{}

	mu      sync.Mutex
	held    map[peer.ID]time.Time // relays with a reservation, and when it ends
	asking  map[peer.ID]bool      // relays that somebody is busy with …
	making  map[peer.ID]bool      // … and those among them that get a new reservation
	pauses  map[peer.ID]*pause    // relays that could not be asked
	refused map[peer.ID]time.Time // relays that said no, and until when not to try
}

// pause is when to try a relay again that could not be asked.
type pause struct {
	backoff retry.Backoff
	until   time.Time
}

func newReserver(m *Mesh) *reserver {
	return &reserver{
		m: m, woken: make(chan struct{}, 1), held: make(map[peer.ID]time.Time),
		asking: make(map[peer.ID]bool), making: make(map[peer.ID]bool),
		pauses: make(map[peer.ID]*pause), refused: make(map[peer.ID]time.Time),
	}
}

// wake makes r look at the relays again. A nil one, of who needs no relay, sleeps
// on.
func (r *reserver) wake() {
	if r == nil {
		return
	}
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// run reserves until ctx ends. The addresses through the relays are told to
// libp2p, and to watchReach, by the event that AutoRelay would emit.
func (r *reserver) run(ctx context.Context) error {
	bus := r.m.host.EventBus()
	sub, err := bus.Subscribe([]any{
		new(event.EvtPeerConnectednessChanged), new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated),
	}, eventbus.Name("cloudless relays"), eventbus.BufSize(64))
	if err != nil {
		return fmt.Errorf("watch relays: %w", err)
	}
	defer sub.Close()
	tell, err := bus.Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		return fmt.Errorf("tell relays: %w", err)
	}
	defer tell.Close()
	tick := time.NewTicker(relayAsk)
	defer tick.Stop()
	var told []peer.ID
	for {
		changed := r.m.contacts.watch()
		if held := r.round(ctx); !slices.Equal(held, told) {
			told = held
			if err := tell.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: r.addrs(held)}); err != nil {
				return fmt.Errorf("tell relays: %w", err)
			}
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-r.woken:
		case e, ok := <-sub.Out():
			if !ok {
				return nil
			}
			r.note(e)
		case <-ctx.Done():
			return nil
		}
	}
}

// note takes over what the host has seen of a peer.
func (r *reserver) note(e any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := e.(type) {
	case event.EvtPeerConnectednessChanged:
		if e.Connectedness == network.NotConnected {
			delete(r.held, e.Peer) // its relay forgets it as well
		}
	case event.EvtPeerIdentificationCompleted:
		delete(r.pauses, e.Peer)
	case event.EvtPeerProtocolsUpdated:
		delete(r.pauses, e.Peer)
	}
}

// doubt has a reservation made again, because a connection to its relay has ended: a
// relay that has moved forgot it when its end of the connection ended.
func (r *reserver) doubt(p peer.ID) {
	if r == nil {
		return
	}
	r.mu.Lock()
	if _, ok := r.held[p]; ok {
		r.held[p] = time.Now()
	}
	r.mu.Unlock()
	r.wake()
}

// relays returns those that hold a reservation.
func (r *reserver) relays() []peer.ID {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.held))
}

// speaking returns the relays that hold a reservation and answer, in order. The
// caller holds mu.
func (r *reserver) speaking() []peer.ID {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.held)), func(p peer.ID) bool { return r.m.silence(p) >= relaySilent })
}

// round asks the relays that are due, and returns those that hold a
// reservation, in order. One that has fallen silent is held until others have
// taken its place, and named only when there is no other.
func (r *reserver) round(ctx context.Context) []peer.ID {
	relays := r.m.contacts.relays()
	rand.Shuffle(len(relays), func(i, j int) { relays[i], relays[j] = relays[j], relays[i] })
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	// A relay that moved has forgotten what it held, also when it stays connected by
	// way of another relay.
	maps.DeleteFunc(r.held, func(p peer.ID, _ time.Time) bool { return len(r.m.direct(p)) == 0 })
	maps.DeleteFunc(r.refused, func(_ peer.ID, until time.Time) bool { return now.After(until) })
	maps.DeleteFunc(r.pauses, func(p peer.ID, _ *pause) bool { return !slices.Contains(relays, p) })
	speaking := r.speaking()
	speaking = speaking[:min(len(speaking), relaysPerNode)] // one that was silent may have come back
	for p, end := range r.held {
		switch lives := slices.Contains(speaking, p); {
		case len(speaking) >= relaysPerNode && !lives:
			delete(r.held, p)
		case now.Add(reserveAhead).After(end):
			r.ask(ctx, p, r.renew)
		}
	}
	for _, p := range relays {
		if len(speaking) >= relaysPerNode || len(r.asking) >= maxCandidates {
			break
		}
		_, held := r.held[p]
		_, refused := r.refused[p]
		paused := r.pauses[p] != nil && now.Before(r.pauses[p].until)
		if !held && !paused && !refused && r.m.silence(p) < relaySilent {
			r.ask(ctx, p, r.reserve)
		}
	}
	if len(speaking) > 0 {
		return speaking
	}
	return slices.Sorted(maps.Keys(r.held))
}

// ask has one relay asked at a time. The caller holds mu.
func (r *reserver) ask(ctx context.Context, p peer.ID, how func(context.Context, peer.ID) (time.Time, error)) {
	if r.asking[p] {
		return
	}
	r.asking[p] = true
	r.m.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, reserveWithin)
		defer cancel()
		end, err := how(ctx, p)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.asking, p)
		delete(r.making, p)
		switch {
		case err == nil && r.m.host.Network().Connectedness(p) == network.Connected:
			r.held[p] = end
			r.wake()
		case errors.Is(err, errNoRelay):
			r.rest(p)
		case err != nil && !errors.Is(err, errEnough):
			delete(r.held, p)
			r.refused[p] = time.Now().Add(relayRetry)
			r.m.log.Debug("no reservation at a relay", zap.Stringer("peer", p), zap.Error(err))
			r.wake()
		}
	})
}

// rest leaves a relay alone that could not be asked. The caller holds mu.
func (r *reserver) rest(p peer.ID) {
	if r.pauses[p] == nil {
		r.pauses[p] = &pause{backoff: retry.Backoff{Initial: relayAsk, Max: maxRelayAsk}}
	}
	r.pauses[p].until = time.Now().Add(r.pauses[p].backoff.Next())
}

// reserve makes a reservation at a relay that relays, and is connected directly.
func (r *reserver) reserve(ctx context.Context, p peer.ID) (end time.Time, err error) {
	addrs := slices.DeleteFunc(r.m.contacts.addrs(p), isRelayed)
	if err := r.m.gated.Connect(ctx, peer.AddrInfo{ID: p, Addrs: addrs}); err != nil {
		return end, fmt.Errorf("%w: %w", errNoRelay, err)
	}
	c := r.m.best(p)
	if c == nil || isRelayed(c.RemoteMultiaddr()) {
		return end, fmt.Errorf("%w: it is behind another one", errNoRelay)
	}
	select {
	case <-r.m.host.IDService().IdentifyWait(c):
	case <-ctx.Done():
		return end, fmt.Errorf("%w: %w", errNoRelay, ctx.Err())
	}
	if hop, err := r.m.host.Peerstore().SupportsProtocols(p, proto.ProtoIDv2Hop); err != nil || len(hop) == 0 {
		return end, fmt.Errorf("%w: it relays for nobody", errNoRelay)
	}
	if !r.begin(p) {
		return end, errEnough
	}
	return r.renew(ctx, p)
}

// begin reports whether another reservation is wanted, and counts it.
func (r *reserver) begin(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.speaking())+len(r.making) >= relaysPerNode {
		return false
	}
	r.making[p] = true
	return true
}

func (r *reserver) renew(ctx context.Context, p peer.ID) (end time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	rsvp, err := client.Reserve(ctx, r.m.gated, peer.AddrInfo{ID: p})
	switch {
	case ctx.Err() != nil:
		return end, fmt.Errorf("%w: it does not answer: %w", errNoRelay, err)
	case err != nil:
		return end, err
	}
	return rsvp.Expiration, nil
}

// addrs returns the addresses of this device through the given relays. Those
// that are not of the internet would help nobody who needs a relay.
func (r *reserver) addrs(relays []peer.ID) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, p := range relays {
		circuit := multiaddr.StringCast("/p2p/" + p.String() + "/p2p-circuit")
		addrs := slices.DeleteFunc(r.m.host.Peerstore().Addrs(p), func(a multiaddr.Multiaddr) bool {
			return isRelayed(a) || !manet.IsPublicAddr(a)
		})
		slices.SortFunc(addrs, func(a, b multiaddr.Multiaddr) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
		for _, a := range addrs[:min(len(addrs), maxCircuitsOf)] {
			out = append(out, a.Encapsulate(circuit))
		}
	}
	return out
}
