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
)

const (
	relaysPerNode = 2
	maxCandidates = 20               // relays that are tried at once
	maxCircuitsOf = 50               // addresses that are told of one relay
	relayRetry    = 15 * time.Second // pause after a relay refused
	relayAsk      = 2 * time.Second  // pause after a relay could not be asked
	reserveWithin = 20 * time.Second // to connect and to reserve
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
	pauses  map[peer.ID]time.Time // relays that could not be asked, and until when not to try
	refused map[peer.ID]time.Time // the same of those that said no
}

func newReserver(m *Mesh) *reserver {
	return &reserver{
		m: m, woken: make(chan struct{}, 1), held: make(map[peer.ID]time.Time),
		asking: make(map[peer.ID]bool), making: make(map[peer.ID]bool),
		pauses: make(map[peer.ID]time.Time), refused: make(map[peer.ID]time.Time),
	}
}

func (r *reserver) wake() {
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

// round asks the relays that are due, and returns those that hold a
// reservation, in order.
func (r *reserver) round(ctx context.Context) []peer.ID {
	relays := r.m.contacts.relays()
	rand.Shuffle(len(relays), func(i, j int) { relays[i], relays[j] = relays[j], relays[i] })
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rests := range []map[peer.ID]time.Time{r.pauses, r.refused} {
		maps.DeleteFunc(rests, func(_ peer.ID, until time.Time) bool { return now.After(until) })
	}
	for p, end := range r.held {
		if now.Add(reserveAhead).After(end) {
			r.ask(ctx, p, r.renew)
		}
	}
	for _, p := range relays {
		if len(r.held) >= relaysPerNode || len(r.asking) >= maxCandidates {
			break
		}
		_, held := r.held[p]
		_, paused := r.pauses[p]
		_, refused := r.refused[p]
		if !held && !paused && !refused {
			r.ask(ctx, p, r.reserve)
		}
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
			r.pauses[p] = time.Now().Add(relayAsk)
		case err != nil && !errors.Is(err, errEnough):
			delete(r.held, p)
			r.refused[p] = time.Now().Add(relayRetry)
			r.m.log.Debug("no reservation at a relay", zap.Stringer("peer", p), zap.Error(err))
			r.wake()
		}
	})
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
	if len(r.held)+len(r.making) >= relaysPerNode {
		return false
	}
	r.making[p] = true
	return true
}

func (r *reserver) renew(ctx context.Context, p peer.ID) (end time.Time, err error) {
	rsvp, err := client.Reserve(ctx, r.m.gated, peer.AddrInfo{ID: p})
	if err != nil {
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
