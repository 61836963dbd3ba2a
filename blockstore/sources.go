package blockstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// firstSources is how many of the nearest holders a fetch asks at once: more
	// than one makes it fast and robust, many only make duplicates.
	firstSources   = 3
	maxSources     = 64
	connectTimeout = 10 * time.Second

	// admissionTimeout is as long as the mesh keeps a connection that is not
	// admitted.
	admissionTimeout = 5 * time.Second
)

type sourceState int

const (
	sourceIdle sourceState = iota
	sourceConnecting
	sourceActive
	sourceFailed // not reached, lost or banned; tried again by refresh
)

type source struct {
	id    api.NodeID
	peer  peer.ID
	state sourceState
	why   string // it failed
}

// sources are the holders of one blob that one fetch knows. Its methods belong
// to the fetch's goroutine; notify alone may be called from others.
type sources struct {
	cfg    *Config
	gate   *gate
	digest string
	list   []*source // in the order in which they are asked

	wake      chan struct{} // a source was lost or banned
	connected chan connectResult
	wg        sync.WaitGroup
}

type connectResult struct {
	source *source
	err    error
}

func newSources(x *Exchange, digest string, from []api.NodeID) *sources {
	s := &sources{
		cfg: &x.cfg, gate: x.gate, digest: digest,
		wake:      make(chan struct{}, 1),
		connected: make(chan connectResult, maxSources),
	}
	s.add(from)
	return s
}

func (s *sources) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// add appends nodes that are not known yet, the nearest first.
func (s *sources) add(ids []api.NodeID) {
	ids = slices.Clone(ids)
	slices.SortStableFunc(ids, func(a, b api.NodeID) int { return cmp.Compare(s.cfg.Rank(a), s.cfg.Rank(b)) })
	for _, id := range ids {
		p, err := peer.Decode(string(id))
		if err != nil || p == s.cfg.Host.ID() || len(s.list) == maxSources ||
			slices.ContainsFunc(s.list, func(k *source) bool { return k.id == id }) {
			continue
		}
		s.list = append(s.list, &source{id: id, peer: p})
	}
}

// start asks the holders that are equally near as the nearest.
func (s *sources) start(ctx context.Context) {
	for i := range min(firstSources, len(s.list)) {
		if s.cfg.Rank(s.list[i].id) == s.cfg.Rank(s.list[0].id) {
			s.widen(ctx)
		}
	}
}

// widen brings in the next holder and reports whether there was one.
func (s *sources) widen(ctx context.Context) bool {
	i := slices.IndexFunc(s.list, func(k *source) bool { return k.state == sourceIdle })
	if i < 0 {
		return false
	}
	next := s.list[i]
	next.state = sourceConnecting
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		err := s.cfg.Connect(ctx, next.id)
		if err == nil {
			s.admitted(ctx, next.id)
		}
		// The channel holds every source, each of which connects once at a time.
		s.connected <- connectResult{next, err}
	})
	return true
}

// admitted waits for a node that is connected to be admitted as well, which
// takes a round trip or two more; that it never was is seen by who asks next.
func (s *sources) admitted(ctx context.Context, id api.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, admissionTimeout)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !s.cfg.Allowed(id) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// onConnected takes the outcome of widen.
func (s *sources) onConnected(ctx context.Context, r connectResult) {
	switch {
	case r.err != nil:
		r.source.fail(r.err.Error())
	case !s.cfg.Allowed(r.source.id):
		r.source.fail("not an admitted member")
	case !s.gate.use(r.source.peer, s):
		r.source.fail("sent wrong content")
	default:
		r.source.state = sourceActive
		return
	}
	s.widen(ctx)
}

// check finds the sources that were lost and asks others in their place.
func (s *sources) check(ctx context.Context) {
	for _, k := range s.list {
		if k.state == sourceActive && !s.gate.uses(k.peer, s) {
			k.fail("connection lost, or wrong content sent")
			s.widen(ctx)
		}
	}
}

// refresh starts over with everybody: new holders, those that failed, and
// those that are silent.
func (s *sources) refresh(ctx context.Context) {
	s.add(s.cfg.Providers(s.digest))
	for _, k := range s.list {
		switch k.state {
		case sourceFailed:
			k.state = sourceIdle
		case sourceActive:
			s.gate.again(k.peer)
		}
	}
	s.widen(ctx)
}

// close ends the use of all sources; the context given to the others has ended.
func (s *sources) close() {
	s.wg.Wait()
	for _, k := range s.list {
		if k.state == sourceActive {
			s.gate.release(k.peer, s)
		}
	}
}

func (k *source) fail(why string) {
	k.state, k.why = sourceFailed, why
}

// String says who was asked and what became of it, for the error of a fetch.
func (s *sources) String() string {
	var b strings.Builder
	for i, k := range s.list {
		if i == 3 {
			fmt.Fprintf(&b, ", and %d more", len(s.list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		why := k.why
		if k.state == sourceActive {
			why = "connected, but did not deliver"
		}
		if why == "" {
			why = "not reached yet"
		}
		fmt.Fprintf(&b, "%s: %s", k.id, strings.ReplaceAll(why, "\n", " "))
	}
	return b.String()
}
