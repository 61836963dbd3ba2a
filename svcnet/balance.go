package svcnet

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

const (
	// An endpoint that failed once is avoided this long; each further failure
	// in a row doubles it up to maxEjection. Short, because the anchor's view
	// (Ready or not) is what really takes an endpoint out.
	firstEjection = time.Second
	maxEjection   = 30 * time.Second

	// Endpoints of one path class count as equally near up to twice the best
	// round-trip time plus this much: spreading load is worth more than that.
	rttSlack = 2 * time.Millisecond
)

// balancer chooses endpoints and remembers how they did.
type balancer struct {
	self  api.NodeID
	paths func(api.NodeID) (api.Path, time.Duration)
	now   func() time.Time
	rand  func(n int) int // uniform in [0, n)

	mu    sync.Mutex
	ends  map[api.ReplicaID]*health
	nodes map[api.NodeID]*health
}

// health is what this node itself learned of an endpoint or a node.
type health struct {
	active   int // open flows
	failures int // in a row
	until    time.Time
}

// candidate is an endpoint with the way to it.
type candidate struct {
	api.Endpoint
	path    api.Path
	rtt     time.Duration
	active  int
	ejected bool
}

func newBalancer(self api.NodeID, paths func(api.NodeID) (api.Path, time.Duration)) *balancer {
	return &balancer{
		self: self, paths: paths, now: time.Now, rand: rand.IntN,
		ends: make(map[api.ReplicaID]*health), nodes: make(map[api.NodeID]*health),
	}
}

// pick returns the endpoint that the next connection should go to, leaving out
// those in tried. It reports false when none is left.
func (b *balancer) pick(endpoints []api.Endpoint, tried map[api.ReplicaID]bool) (candidate, bool) {
	candidates := make([]candidate, 0, len(endpoints))
	for _, e := range endpoints {
		if !e.Ready || tried[e.Replica] {
			continue
		}
		c := candidate{Endpoint: e, path: api.PathSelf}
		if e.Node != b.self {
			c.path, c.rtt = b.paths(e.Node)
		}
		candidates = append(candidates, c)
	}
	b.mark(candidates)
	return choose(candidates, b.rand)
}

// mark fills in what is remembered of the candidates.
func (b *balancer) mark(candidates []candidate) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range candidates {
		c := &candidates[i]
		if h := b.ends[c.Replica]; h != nil {
			c.active = h.active
			c.ejected = now.Before(h.until)
		}
		if h := b.nodes[c.Node]; h != nil && now.Before(h.until) {
			c.ejected = true
		}
	}
}

// choose is the rule of balance: not recently failed, nearest path class,
// round-trip time, then the less busy of two drawn by weight. It reorders its
// argument.
func choose(candidates []candidate, rnd func(int) int) (candidate, bool) {
	if len(candidates) == 0 {
		return candidate{}, false
	}
	best := candidates[0]
	for _, c := range candidates[1:] {
		if c.nearer(best) {
			best = c
		}
	}
	limit := 2*best.rtt + rttSlack
	equals := candidates[:0]
	for _, c := range candidates {
		if c.ejected == best.ejected && c.path == best.path && c.rtt <= limit {
			equals = append(equals, c)
		}
	}
	first := draw(equals, rnd)
	a := equals[first]
	equals[first] = equals[len(equals)-1]
	rest := equals[:len(equals)-1]
	if len(rest) == 0 {
		return a, true
	}
	// Ties go to the first: with nothing open, weight alone decides.
	if c := rest[draw(rest, rnd)]; c.active*weight(a) < a.active*weight(c) {
		return c, true
	}
	return a, true
}

func (c *candidate) nearer(than candidate) bool {
	if c.ejected != than.ejected {
		return !c.ejected
	}
	if a, b := c.path.Rank(), than.path.Rank(); a != b {
		return a < b
	}
	return c.rtt < than.rtt
}

// draw returns the index of a candidate, each as likely as its weight.
func draw(candidates []candidate, rnd func(int) int) int {
	total := 0
	for _, c := range candidates {
		total += weight(c)
	}
	n := rnd(total)
	for i, c := range candidates {
		if n -= weight(c); n < 0 {
			return i
		}
	}
	return len(candidates) - 1
}

// weight treats an unset weight as 1 and bounds the rest.
func weight(c candidate) int { return min(max(c.Weight, 1), 1<<16) }

// opened counts a flow to an endpoint that answered, and forgives it.
func (b *balancer) opened(replica api.ReplicaID, node api.NodeID) (closed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.endpoint(replica)
	h.active++
	h.failures, h.until = 0, time.Time{}
	delete(b.nodes, node)
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if h.active--; h.active == 0 && h.failures == 0 && b.ends[replica] == h {
			delete(b.ends, replica)
		}
	})
}

// failed avoids an endpoint, or with replica "" every endpoint of a node.
func (b *balancer) failed(replica api.ReplicaID, node api.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var h *health
	if replica != "" {
		h = b.endpoint(replica)
	} else if h = b.nodes[node]; h == nil {
		h = new(health)
		b.nodes[node] = h
	}
	h.failures++
	h.until = b.now().Add(min(firstEjection<<min(h.failures-1, 10), maxEjection))
}

func (b *balancer) endpoint(replica api.ReplicaID) *health {
	h := b.ends[replica]
	if h == nil {
		h = new(health)
		b.ends[replica] = h
	}
	return h
}

// keep forgets what the new snapshot no longer names, so that memory is bounded by
// it, and forgives endpoints that have become ready since the old one.
func (b *balancer) keep(old, now *snapshot) {
	wasReady := readyEndpoints(old)
	isReady := readyEndpoints(now)
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, h := range b.ends {
		switch {
		case h.active > 0:
		case !isReady[id], !wasReady[id]:
			delete(b.ends, id)
		}
	}
	for id, h := range b.nodes {
		if b.now().After(h.until.Add(maxEjection)) {
			delete(b.nodes, id)
		}
	}
}

func readyEndpoints(s *snapshot) map[api.ReplicaID]bool {
	ready := make(map[api.ReplicaID]bool)
	for _, svc := range s.services {
		for _, e := range svc.endpoints {
			if e.Ready {
				ready[e.Replica] = true
			}
		}
	}
	return ready
}
