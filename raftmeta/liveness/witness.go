package liveness

import (
	"cmp"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

const (
	lanWitnesses = 3  // asked of a node's own zone
	allWitnesses = 5  // with those of elsewhere
	maxAsks      = 64 // nodes that are asked about in one Step
	silentRounds = 3  // rounds without an answer after which witnesses count for nothing

	leastWithin = 200 * time.Millisecond // a probe may take, and more where heartbeats are jittery
	mostWithin  = 2 * time.Second
	answerSlack = 500 * time.Millisecond // what the way to a witness and back may take beyond that
	askEvery    = 400 * time.Millisecond // spacing of rounds, at first …
	askRarely   = 3 * time.Second        // … and in the end
)

// Ask is the wish that witnesses probe a node that fell silent. The judge
// should probe it as well: an answer counts as hearing the node.
type Ask struct {
	Node      api.NodeID
	Witnesses []api.NodeID  // on its LAN first; none when there is nobody to ask
	Within    time.Duration // what a probe may take
}

// WitnessReport is what one witness says of a node.
type WitnessReport struct {
	Witness api.NodeID
	Node    api.NodeID
	Reached bool // within the time given
	Frozen  bool // not reached, but its device answers: the kernel without the daemon
}

// asked is one witness of a round.
type asked struct {
	id      api.NodeID
	lan     bool // in the zone of the node in question
	answer  bool
	reached bool
	frozen  bool
}

// inquiry is what witnesses say of a node that is silent, round by round.
type inquiry struct {
	round      int       // 0 before the first
	unanswered int       // rounds in a row that nobody answered
	at         time.Time // the round began
	within     time.Duration
	asked      []asked
	seenLAN    sighting  // last, by a witness of its zone
	seenFar    sighting  // last, by a witness elsewhere
	seenFrozen sighting  // last, by any: its device alone answered
	together   time.Time // it was silent with its house, or with most of the cluster, last
	due        time.Time // a verdict of death was first due then
}

// deniedByLAN tells whether a witness of the node's zone did not reach it.
func (q *inquiry) deniedByLAN() bool {
	return slices.ContainsFunc(q.asked, func(a asked) bool { return a.lan && a.answer && !a.reached && !a.frozen })
}

// sighting is when a witness reached a node, the zero time for never.
type sighting struct {
	by api.NodeID
	at time.Time
}

// Witness notes the answer of a witness. One that was not asked in the present
// round says nothing; if its node was heard meanwhile, it says something of the
// node's path.
func (d *Detector) Witness(r WitnessReport, now time.Time) {
	t := d.tracks[r.Node]
	if t == nil {
		return
	}
	for i := range t.arrears.asked {
		if a := &t.arrears.asked[i]; a.id == r.Witness && !a.answer {
			a.answer = true
			t.arrears.answer(!r.Reached && !r.Frozen)
			break
		}
	}
	for i := range t.inquiry.asked {
		a := &t.inquiry.asked[i]
		if a.id != r.Witness || a.answer {
			continue
		}
		a.answer, a.reached, a.frozen = true, r.Reached, r.Frozen
		switch {
		case r.Reached && a.lan:
			t.inquiry.seenLAN = sighting{a.id, now}
		case r.Reached:
			t.inquiry.seenFar = sighting{a.id, now}
		case r.Frozen:
			t.inquiry.seenFrozen = sighting{a.id, now}
		}
	}
}

// finding is the sum of what witnesses say.
type finding int

const (
	waiting  finding = iota // for an answer
	alone                   // there is nobody to ask, or nobody who answers
	gone                    // no witness reaches the node
	onlyLAN                 // a witness on its LAN still sees it
	frozen                  // a witness reaches its device, and not its daemon
	farSight                // a witness elsewhere reaches it: it is the judge's path that is broken
)

// find sums up the present round.
func (s *scene) find(t *track) (finding, api.NodeID) {
	q := &t.inquiry
	fresh := 2*q.spacing() + q.within + answerSlack
	switch {
	case !q.seenFar.at.IsZero() && s.now.Sub(q.seenFar.at) < fresh:
		return farSight, q.seenFar.by
	case !q.seenLAN.at.IsZero() && s.now.Sub(q.seenLAN.at) < fresh:
		return onlyLAN, q.seenLAN.by
	case !q.seenFrozen.at.IsZero() && s.now.Sub(q.seenFrozen.at) < fresh:
		return frozen, q.seenFrozen.by
	case q.round == 0:
		return waiting, ""
	case len(q.asked) == 0:
		return alone, ""
	case !s.settled(q):
		return waiting, ""
	case slices.ContainsFunc(q.asked, func(a asked) bool { return a.answer }):
		return gone, ""
	case q.unanswered+1 >= silentRounds:
		return alone, ""
	}
	return waiting, ""
}

// settled reports whether nothing more is to be expected of a round: every
// witness has answered, fell silent itself, or was heard since without an
// answer. A witness of which nothing is heard holds the verdict up: perhaps its
// whole house is offline and it has not been missed yet.
func (s *scene) settled(q *inquiry) bool {
	if s.now.Sub(q.at) > s.d.cfg.Ceiling {
		return true
	}
	late := q.at.Add(q.within + answerSlack)
	for _, a := range q.asked {
		if a.answer || s.dark[a.id] {
			continue
		}
		if w := s.d.tracks[a.id]; s.now.Before(late) || w != nil && !w.last.After(q.at) {
			return false
		}
	}
	return true
}

// spacing is the pause between rounds; it grows.
func (q *inquiry) spacing() time.Duration {
	return min(askEvery<<min(q.round/2, 8), askRarely)
}

// ask begins the rounds that are due. Nobody is asked about those who fell
// silent with most of the cluster: then it is the judge who is alone.
func (s *scene) ask() []Ask {
	var out []Ask
	for _, i := range s.doubted {
		n := &s.nodes[i]
		t := s.d.tracks[n.ID]
		q := &t.inquiry
		if len(out) == maxAsks || s.dying[n.ID] || !observed(n.State) || !t.goodbye.IsZero() ||
			s.most(s.fellWith(t.last)) || q.round > 0 && (s.now.Sub(q.at) < q.spacing() || !s.settled(q) || s.imminent(t)) {
			continue
		}
		out = append(out, s.begin(n, t))
	}
	return out
}

// imminent tells whether what witnesses said will do for the verdict, which is due
// before they could say it again.
func (s *scene) imminent(t *track) bool {
	found, _ := s.find(t)
	wait := s.d.downAfter(t, s.d.cfg.DownFloor, s.now) - s.now.Sub(t.last)
	return found == gone && wait > 0 && wait < t.inquiry.within+answerSlack
}

// begin starts a round of questions about a node.
func (s *scene) begin(n *api.Node, t *track) Ask {
	q := &t.inquiry
	if q.round > 0 && !slices.ContainsFunc(q.asked, func(a asked) bool { return a.answer }) {
		q.unanswered++
	} else {
		q.unanswered = 0
	}
	q.round++
	q.at = s.now
	q.within = max(leastWithin, 3*t.rtt+100*time.Millisecond)
	if !t.arrears.chronic() { // else it is what a good path needs that counts
		q.within += 2 * t.deviation
	}
	q.within = min(q.within, mostWithin)
	q.asked = s.choose(n, q.round)
	t.arrears.asked = slices.Clone(q.asked)
	a := Ask{Node: n.ID, Within: q.within}
	for _, w := range q.asked {
		a.Witnesses = append(a.Witnesses, w.id)
	}
	return a
}

// choose picks the witnesses of a round: those of the node's zone, filled up
// from elsewhere, anchors first because every node is connected to them.
func (s *scene) choose(n *api.Node, round int) []asked {
	type candidate struct {
		i    int
		lan  bool
		rank uint64
	}
	var lan, far []candidate
	for i := range s.nodes {
		w := &s.nodes[i]
		if w.ID == n.ID || w.ID == s.self || s.dark[w.ID] || !serves(w.State) {
			continue
		}
		c := candidate{i, n.Inventory.Zone != "" && w.Inventory.Zone == n.Inventory.Zone, lot(n.ID, w.ID, round)}
		if c.lan {
			lan = append(lan, c)
			continue
		}
		if !w.Voter {
			c.rank |= 1 << 63
		} else {
			c.rank &^= 1 << 63
		}
		far = append(far, c)
	}
	var out []asked
	take := func(from []candidate, most int) {
		slices.SortFunc(from, func(a, b candidate) int { return cmp.Compare(a.rank, b.rank) })
		for _, c := range from[:min(most, len(from))] {
			out = append(out, asked{id: s.nodes[c.i].ID, lan: c.lan})
		}
	}
	take(lan, lanWitnesses)
	take(far, allWitnesses-len(out))
	return out
}

// lot draws a number for a witness, another one in each round: FNV-1a.
func lot(node, witness api.NodeID, round int) uint64 {
	h := uint64(14695981039346656037)
	mix := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for i := range len(node) {
		mix(node[i])
	}
	mix(byte(round))
	for i := range len(witness) {
		mix(witness[i])
	}
	h ^= h >> 32
	return h * 0x9e3779b97f4a7c15
}
