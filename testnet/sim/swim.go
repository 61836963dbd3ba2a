package sim

import (
	"math"
	"time"
)

// What hashicorp/memberlist calls DefaultLANConfig.
const (
	swimProbeEvery   = time.Second
	swimProbeTimeout = 500 * time.Millisecond
	swimIndirect     = 3
	swimGossipEvery  = 200 * time.Millisecond
	swimGossipNodes  = 3
	swimRetransmit   = 4
	swimSuspicion    = 4
	swimSuspicionMax = 6
)

// A member's opinion of the one node that the simulation is about.
type opinion uint8

const (
	unaware opinion = iota // of a joiner; of others: alive
	suspects
	knows // that it joined, left, or is dead
)

// swim is a cluster of memberlist's kind, in which everybody is as well as can
// be except one.
type swim struct {
	*network
	subject int
	members []swimMember
	missing int // of those who should know, before 99 % do
	done    time.Duration
}

type swimMember struct {
	opinion opinion
	sends   int // left for the broadcast of the opinion
	from    int // who suspects, in the broadcast
	since   time.Duration
	sources map[int]bool // whose suspicion it has heard
}

func newSWIM(w *network, subject int) *swim {
	s := &swim{network: w, subject: subject, members: make([]swimMember, len(w.hosts))}
	s.missing = len(s.members) - 1 - (len(s.members)-1)/100
	for i := range s.members {
		s.after(time.Duration(w.rand.Int64N(int64(swimGossipEvery))), func() { s.gossip(i) })
	}
	return s
}

func (s *swim) retransmit() int {
	return swimRetransmit * int(math.Ceil(math.Log10(float64(len(s.members)+1))))
}

// join lets the subject tell its seed of itself; push and pull over TCP take two
// round trips.
func (s *swim) join() {
	s.adopt(s.subject, knows, 0)
	seed := (s.subject + 1 + s.rand.IntN(len(s.members)-1)) % len(s.members)
	s.after(4*s.latency(s.subject, seed), func() { s.adopt(seed, knows, 0) })
}

// leave lets the subject say that it goes.
func (s *swim) leave() { s.adopt(s.subject, knows, 0) }

// die silences the subject; from now on others probe it, each member one of the
// others a second.
func (s *swim) die() {
	s.hosts[s.subject].dead = true
	for i := range s.members {
		if i != s.subject {
			s.after(time.Duration(s.rand.Int64N(int64(swimProbeEvery))), func() { s.probe(i) })
		}
	}
}

// probe draws whether it is the subject's turn. Members go round in a random
// order, which at this length is as good as drawing.
func (s *swim) probe(i int) {
	if s.rand.IntN(len(s.members)-1) == 0 && s.members[i].opinion != knows {
		// No acknowledgement, directly or through others, by the end of the period.
		s.after(swimProbeEvery, func() { s.suspect(i, i) })
	}
	s.after(swimProbeEvery, func() { s.probe(i) })
}

// suspicion is how long a member waits when others have confirmed its suspicion.
func (s *swim) suspicion(confirmations int) time.Duration {
	scale := max(1, math.Log10(float64(len(s.members))))
	least := swimSuspicion * scale * swimProbeEvery.Seconds()
	most := swimSuspicionMax * least
	k := float64(swimSuspicion - 2)
	wait := most - math.Log(float64(confirmations)+1)/math.Log(k+1)*(most-least)
	return time.Duration(max(wait, least) * float64(time.Second))
}

// suspect is member i hearing that one of the others suspects the subject.
func (s *swim) suspect(i, from int) {
	m := &s.members[i]
	if m.opinion == knows || m.sources[from] || len(m.sources) > swimSuspicion-2 {
		return
	}
	if m.opinion == unaware {
		m.opinion, m.since, m.sources = suspects, s.now, make(map[int]bool)
	}
	m.sources[from] = true
	m.sends, m.from = s.retransmit(), from
	s.at(m.since+s.suspicion(len(m.sources)-1), func() {
		if m.opinion == suspects && s.now >= m.since+s.suspicion(len(m.sources)-1) {
			s.adopt(i, knows, 0)
		}
	})
}

// adopt is member i learning what there is to know.
func (s *swim) adopt(i int, o opinion, from int) {
	m := &s.members[i]
	if m.opinion == knows {
		return
	}
	if o == suspects {
		s.suspect(i, from)
		return
	}
	m.opinion, m.sends = knows, s.retransmit()
	if i == s.subject {
		return
	}
	if s.missing--; s.missing == 0 {
		s.done = s.now
	}
}

// gossip sends what member i has to say to three others.
func (s *swim) gossip(i int) {
	s.after(swimGossipEvery, func() { s.gossip(i) })
	for range swimGossipNodes {
		m := &s.members[i]
		if m.sends == 0 || s.hosts[i].dead {
			return
		}
		m.sends--
		to := s.rand.IntN(len(s.members))
		if to == i || !s.passes(i, to, s.now) {
			continue
		}
		o, from := m.opinion, m.from
		s.after(s.latency(i, to), func() { s.adopt(to, o, from) })
	}
}
