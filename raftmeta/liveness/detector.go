package liveness

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Config says how patient a Detector is. Zero values mean the defaults.
type Config struct {
	SuspectFloor time.Duration // least silence before suspect; default 725ms
	DownFloor    time.Duration // least silence before down, when witnesses confirm it; default 1s
	RoughFloor   time.Duration // the same on a path that loses or delays heartbeats; default 4s
	LonelyFloor  time.Duration // the same when there is nobody to ask; default 2.2s
	BrokenFloor  time.Duration // the same when the connection broke as well; default 1.5s
	FrozenFloor  time.Duration // the same when its device answers and its daemon does not; default 5s
	Ceiling      time.Duration // most silence before down that a jittery link can earn; default 10s
	Together     time.Duration // nodes that fell silent within this time did so together; default 3s
	ReturnGrace  time.Duration // how long a node that was cut off with others may take to come back after them; default 30s
	PauseGrace   time.Duration // how long a daemon that said goodbye may be away; default 30s
	Newcomer     time.Duration // extra silence allowed to a node that was never heard; default 5s
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.SuspectFloor, 725*time.Millisecond)
	def(&c.DownFloor, time.Second)
	def(&c.RoughFloor, 4*time.Second)
	def(&c.LonelyFloor, 2200*time.Millisecond)
	def(&c.BrokenFloor, 1500*time.Millisecond)
	def(&c.FrozenFloor, 5*time.Second)
	def(&c.Ceiling, 10*time.Second)
	def(&c.Together, 3*time.Second)
	def(&c.ReturnGrace, 30*time.Second)
	def(&c.PauseGrace, 30*time.Second)
	def(&c.Newcomer, 5*time.Second)
	return c
}

// Transition is a verdict that differs from a node's recorded state.
type Transition struct {
	Node   api.NodeID
	From   api.NodeState
	To     api.NodeState
	Reason string // for people
}

// Detector watches the nodes of a cluster. It is not safe for concurrent use.
type Detector struct {
	cfg      Config
	interval time.Duration // of heartbeats in a cluster of this size
	doubts   bool          // somebody was silent for too long in the last Step

	failingSince time.Time // paths are of no use that were well before; zero when there is none
	tracks       map[api.NodeID]*track
}

// New returns a detector that has heard of nobody.
func New(cfg Config) *Detector {
	return &Detector{cfg: cfg.withDefaults(), interval: HeartbeatInterval(0), tracks: make(map[api.NodeID]*track)}
}

// lastWords is how long after a goodbye heartbeats may still arrive that were
// sent before it.
const lastWords = time.Second

// Heard notes a sign of life. Only heartbeats say something about the spacing.
func (d *Detector) Heard(node api.NodeID, heartbeat bool, now time.Time) {
	t := d.track(node, now)
	if !t.goodbye.IsZero() && now.Sub(t.goodbye) < lastWords {
		return
	}
	gap := now.Sub(t.last)
	if gap > d.suspectAfter(t) {
		t.returned(gap, now)
	}
	t.arrears.add(gap, d.interval)
	if heartbeat {
		t.learn(now.Sub(t.beat), d.interval, now)
		t.beat = now
	}
	if now.After(t.last) || heartbeat {
		t.last = now
	}
	t.broken, t.goodbye, t.inquiry = time.Time{}, time.Time{}, inquiry{}
}

// Restarted notes that a node's daemon is another one than before. What came
// before it was an outage: it says nothing of the link.
func (d *Detector) Restarted(node api.NodeID, now time.Time) {
	t := d.track(node, now)
	*t = track{last: now, since: t.since, beat: now, mean: d.interval, rtt: t.rtt, late: t.late, lateAt: t.lateAt}
}

// Measured notes the round trip to a node.
func (d *Detector) Measured(node api.NodeID, rtt time.Duration, now time.Time) {
	d.track(node, now).rtt = rtt
}

// Broken notes that the last connection to a node broke without a word.
func (d *Detector) Broken(node api.NodeID, now time.Time) { d.track(node, now).broken = now }

// Connected notes that a node is connected again.
func (d *Detector) Connected(node api.NodeID, now time.Time) {
	d.track(node, now).broken = time.Time{}
}

// Goodbye notes that a node's daemon said that it stops.
func (d *Detector) Goodbye(node api.NodeID, now time.Time) { d.track(node, now).goodbye = now }

// Slept notes that the judge itself did not run for a while: a paused machine
// has heard nobody, and that says nothing of the others.
func (d *Detector) Slept(pause time.Duration) {
	for _, t := range d.tracks {
		t.last, t.beat = t.last.Add(pause), t.beat.Add(pause)
	}
}

// track returns a node's record, a newcomer's if need be.
func (d *Detector) track(node api.NodeID, now time.Time) *track {
	t := d.tracks[node]
	if t == nil {
		t = &track{last: now.Add(d.cfg.Newcomer), since: now, mean: d.interval}
		d.tracks[node] = t
	}
	return t
}

// Step judges all nodes of a cluster as they are recorded, and says which
// witnesses should be asked; self is the judge. It forgets nodes that are not
// among them. Questions come in the order of the nodes, verdicts too, except that
// deaths which waited for each other come last.
func (d *Detector) Step(nodes []api.Node, self api.NodeID, now time.Time) ([]Transition, []Ask) {
	d.forget(nodes)
	d.interval = HeartbeatInterval(len(nodes))
	s := d.look(nodes, self, now)
	d.doubts = len(s.doubted) > 0
	var out []Transition
	var held []Transition // deaths that wait for others
	release := false
	for i := range nodes {
		if nodes[i].ID == self {
			continue
		}
		to, reason := s.judge(i)
		tr := Transition{nodes[i].ID, nodes[i].State, to, reason}
		switch {
		case to == "" || to == tr.From:
		case to == api.NodeDown && s.hold(i):
			held = append(held, tr)
			s.dying[tr.Node] = true // asking again would undo the verdict for a while
		default:
			out = append(out, tr)
			if to == api.NodeDown {
				release, s.dying[tr.Node] = true, true
			}
		}
	}
	for _, tr := range held { // when one goes, all go that may
		if !release {
			tr.To, tr.Reason = api.NodeSuspect, "silent together with others"
		}
		if tr.To != tr.From {
			out = append(out, tr)
		}
	}
	return out, s.ask()
}

// Pace returns when the next Step is due: often while somebody is in doubt, when
// every moment counts, and otherwise as often as it takes to miss nobody.
func (d *Detector) Pace() time.Duration {
	if d.doubts {
		return d.interval / 25
	}
	return d.interval / 10
}

func (d *Detector) forget(nodes []api.Node) {
	if len(d.tracks) <= len(nodes) {
		return // not exact, but it bounds the tracks
	}
	known := make(map[api.NodeID]bool, len(nodes))
	for _, n := range nodes {
		known[n.ID] = true
	}
	for id := range d.tracks {
		if !known[id] {
			delete(d.tracks, id)
		}
	}
}
