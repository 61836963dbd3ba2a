package liveness

import (
	"fmt"
	"math"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// A path that loses most of what is sent need not be silent for long enough to
// be taken for dead, and yet is of no use. What gives it away is that its
// heartbeats are in arrears again and again: for a share of the time, the last
// word is older than a heartbeat explains.
const (
	dueAfter    = 1.25 // intervals of heartbeats since the last word; beyond it time counts as arrears …
	mostArrears = 4.0  // … up to so many of one silence, because a single one decides nothing here
	fewBeats    = 8.0  // intervals that the short memory lasts …
	manyBeats   = 40.0 // … and the long one

	uneasyShare  = 0.03 // of the time in arrears, in the short memory: at least one heartbeat was much too late
	ailingShare  = 0.1  // of the time in arrears, from which a path is not well …
	failingShare = 0.25 // … and, in the long memory, from which it is of no use
	deniedShare  = 0.5  // of the answers of witnesses that must say so, too: else it is the judge's path alone

	leastCrowd   = 3 // others in trouble that make a death worth another heartbeat's wait …
	leastCompany = 4 // … and others that come and go that make it one of theirs

	// failTogether is how many intervals a path that fails waits for those that
	// ail, so that what broke together is one change of the cluster.
	failTogether = 30
)

// arrears is the share of time that a node was overdue, over a short and over a
// long memory, as of its last word.
type arrears struct {
	few, many float64
	denied    float64 // share of witnesses that did not reach it, of late …
	asked     []asked // … of those that were asked last
	failing   bool    // of no use, until it is well
}

// add takes the silence before a word into account.
func (a *arrears) add(silence, interval time.Duration) {
	if silence <= 0 {
		return
	}
	beats := float64(silence) / float64(interval)
	over := min(max(beats-dueAfter, 0), mostArrears)
	fade := func(share, memory float64) float64 {
		return share*math.Exp(-beats/memory) + 1 - math.Exp(-over/memory)
	}
	a.few, a.many = fade(a.few, fewBeats), fade(a.many, manyBeats)
	if a.many < ailingShare {
		a.failing = false
	}
}

// answer takes the answer of a witness into account.
func (a *arrears) answer(no bool) {
	a.denied -= a.denied / 8
	if no {
		a.denied += 1. / 8
	}
}

// chronic tells whether a path has not been well for a while: witnesses are then
// asked at each longer silence.
func (a *arrears) chronic() bool { return a.many >= ailingShare }

// uneasy tells whether something has been wrong with a path of late.
func (a *arrears) uneasy() bool { return a.few >= uneasyShare || a.chronic() }

// ails tells whether a path is not well.
func (a *arrears) ails() bool { return a.few >= ailingShare || a.chronic() }

// fails tells whether a path is of no use. It stays so until it is well again.
func (a *arrears) fails() bool {
	a.failing = a.failing || a.many >= failingShare && a.denied >= deniedShare
	return a.failing
}

// useless finds the nodes whose paths are of no use. Those that ail may follow in
// a moment: they are waited for, and those that do by the end go with the others.
// When most of the cluster ails, it is the judge who does.
func (s *scene) useless() {
	var open []api.NodeID
	for i := range s.nodes {
		n := &s.nodes[i]
		t := s.d.tracks[n.ID]
		if n.State == api.NodeDown && s.now.Sub(n.StateSince) < s.d.cfg.Ceiling {
			s.fallen++
		}
		if t == nil || !counts(n.State) || !t.arrears.uneasy() {
			continue
		}
		s.uneasy++
		if !t.arrears.ails() {
			continue
		}
		s.ailing++
		switch {
		case !observed(n.State) || n.Unstable || !t.goodbye.IsZero():
		case t.arrears.fails():
			s.failing = append(s.failing, n.ID)
		case t.arrears.chronic():
			open = append(open, n.ID)
		}
	}
	switch since := s.d.failingSince; {
	case len(s.failing) == 0:
		s.d.failingSince = time.Time{}
	case s.most(s.ailing):
		s.failing = nil
	case since.IsZero():
		s.d.failingSince = s.now
		fallthrough
	case len(open) > 0 && s.now.Sub(s.d.failingSince) < failTogether*s.d.interval:
		s.failing = nil
	default:
		for _, id := range open {
			if s.d.tracks[id].arrears.denied >= deniedShare {
				s.failing = append(s.failing, id)
			}
		}
	}
}

// crowd tells whether so many others are silent now or were lately that one more
// heartbeat of everybody should tell who belongs to them.
func (s *scene) crowd(t *track) bool {
	others := len(s.silent) - 1 + s.uneasy + s.fallen
	if t.arrears.uneasy() {
		others--
	}
	return others >= max(leastCrowd, s.members/300) && others <= s.members/10
}

// company tells whether others come and go just when a node is silent: enough of
// them that its silence is likely to be of the same kind, and so few that it is not
// the network as a whole. Then it is waited for, and judged with them.
func (s *scene) company(t *track) bool {
	others := s.uneasy
	if t.arrears.uneasy() {
		others--
	}
	return others >= 2 && others+s.fallen >= max(leastCompany, s.members/250) && others <= s.members/10
}

// weary is why a node is given up that is heard now and then.
func (t *track) weary() string {
	return fmt.Sprintf("out of reach for %.0f %% of the time, and witnesses miss it as well", 100*t.arrears.many)
}
