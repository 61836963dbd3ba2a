package sim

import "time"

// The anchor of the simulation is a small server.
const (
	uplink   = 1e9 / 8 // bytes per second
	downlink = 50e6 / 8
	cores    = 2
	coalesce = 10 * time.Millisecond // a change waits for others to travel with it
	settle   = 5 * time.Millisecond
)

// push says what telling one node of a change costs.
type push struct {
	bytes int
	cpu   time.Duration // on one core
}

// takes is how long the anchor is busy with one push.
func (p push) takes() time.Duration {
	wire := time.Duration(float64(p.bytes) / uplink * float64(time.Second))
	return max(wire, p.cpu/cores, time.Microsecond)
}

// spreader tells nodes of changes over their sync streams, as the leader does
// it: a node that has not been served yet gets the newest state when its turn
// comes.
type spreader struct {
	*cluster
	push    push
	version int
	queued  []bool
	queue   []int // nodes to be served, in order
	busy    bool
	known   []int // version that each node has
	sent    int   // bytes

	goal    int // version that everybody should know
	missing int // of them, before 99 % do
	done    time.Duration
}

func newSpreader(c *cluster, p push) *spreader {
	s := &spreader{cluster: c, push: p, queued: make([]bool, len(c.nodes)), known: make([]int, len(c.nodes))}
	c.changed = func([]change) { s.tell() }
	return s
}

// tell starts to spread what was just decided.
func (s *spreader) tell() {
	s.version++
	s.after(commitTakes+coalesce, func() {
		for _, i := range s.rand.Perm(len(s.nodes)) {
			if i == 0 || s.hosts[i].dead {
				continue
			}
			for len(s.queued) <= i {
				s.queued, s.known = append(s.queued, false), append(s.known, 0)
			}
			if !s.queued[i] {
				s.queued[i] = true
				s.queue = append(s.queue, i)
			}
		}
		s.serve()
	})
}

func (s *spreader) serve() {
	if s.busy || len(s.queue) == 0 {
		return
	}
	s.busy = true
	i := s.queue[0]
	s.queue = s.queue[1:]
	s.queued[i] = false
	version := s.version
	s.after(s.push.takes(), func() {
		s.busy = false
		s.sent += s.push.bytes
		if t, ok := s.send(0, i, s.now); ok {
			t += time.Duration(float64(s.push.bytes) / downlink * float64(time.Second))
			s.at(t, func() { s.arrived(i, version) })
		}
		s.serve()
	})
}

func (s *spreader) arrived(i, version int) {
	if before := s.known[i]; version > before {
		s.known[i] = version
		if s.goal > 0 && before < s.goal && version >= s.goal {
			if s.missing--; s.missing == 0 {
				s.done = s.now
			}
		}
	}
}

// await sets what everybody should know from now on: the present version.
func (s *spreader) await() {
	s.goal, s.done = s.version, 0
	live := 0
	for i := range s.hosts {
		if i > 0 && !s.hosts[i].dead {
			live++
		}
	}
	s.missing = live - live/100
}
