package liveness

import (
	"fmt"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Config says how patient a Detector is. Zero values mean the defaults.
type Config struct {
	Interval     time.Duration // expected spacing of heartbeats; default 500ms
	SuspectFloor time.Duration // least silence before suspect; default 1.2s
	DownFloor    time.Duration // least silence before down; default 2.2s
	BrokenFloor  time.Duration // the same when the connection broke as well; default 1.5s
	Ceiling      time.Duration // most silence before down, however jittery the link; default 10s
	Together     time.Duration // nodes that fell silent within this time did so together; default 3s
	HouseGrace   time.Duration // how long a dark house is cut off before it is down; default 30s
	PauseGrace   time.Duration // how long a daemon that said goodbye may be away; default 30s
	Newcomer     time.Duration // extra silence allowed to a node that was never heard; default 5s
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Interval, 500*time.Millisecond)
	def(&c.SuspectFloor, 1200*time.Millisecond)
	def(&c.DownFloor, 2200*time.Millisecond)
	def(&c.BrokenFloor, 1500*time.Millisecond)
	def(&c.Ceiling, 10*time.Second)
	def(&c.Together, 3*time.Second)
	def(&c.HouseGrace, 30*time.Second)
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

// track is what is known of one node's heartbeats.
type track struct {
	last      time.Time // heard; in the future for a newcomer
	mean      time.Duration
	deviation time.Duration
	broken    time.Time // the last connection broke then; zero while connected
	goodbye   time.Time // it said that it stops; zero otherwise
}

// Detector watches the nodes of a cluster. It is not safe for concurrent use.
type Detector struct {
	cfg    Config
	tracks map[api.NodeID]*track
}

// New returns a detector that has heard of nobody.
func New(cfg Config) *Detector {
	return &Detector{cfg: cfg.withDefaults(), tracks: make(map[api.NodeID]*track)}
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
	// A silence that was long enough for a verdict was an outage, not jitter.
	if spacing := now.Sub(t.last); heartbeat && spacing > 0 && spacing < d.downAfter(t) {
		deviation := (spacing - t.mean).Abs()
		t.deviation += (deviation - t.deviation) / 4
		t.mean += (spacing - t.mean) / 8
	}
	if now.After(t.last) || heartbeat {
		t.last = now
	}
	t.broken, t.goodbye = time.Time{}, time.Time{}
}

// Broken notes that the last connection to a node broke without a word.
func (d *Detector) Broken(node api.NodeID, now time.Time) { d.track(node, now).broken = now }

// Connected notes that a node is connected again.
func (d *Detector) Connected(node api.NodeID, now time.Time) {
	d.track(node, now).broken = time.Time{}
}

// Goodbye notes that a node's daemon said that it stops.
func (d *Detector) Goodbye(node api.NodeID, now time.Time) { d.track(node, now).goodbye = now }

// track returns a node's record, a newcomer's if need be.
func (d *Detector) track(node api.NodeID, now time.Time) *track {
	t := d.tracks[node]
	if t == nil {
		t = &track{last: now.Add(d.cfg.Newcomer), mean: d.cfg.Interval}
		d.tracks[node] = t
	}
	return t
}

// patience is how much silence a node's spacing explains.
func (t *track) patience() time.Duration { return t.mean + 4*t.deviation }

// suspectAfter and downAfter are how much silence is too much.
func (d *Detector) suspectAfter(t *track) time.Duration {
	return min(max(d.cfg.SuspectFloor, t.patience()+d.cfg.Interval), d.cfg.Ceiling)
}

func (d *Detector) downAfter(t *track) time.Duration {
	floor := d.cfg.DownFloor
	if !t.broken.IsZero() {
		floor = d.cfg.BrokenFloor
	}
	return min(max(floor, 2*t.patience()+d.cfg.Interval), d.cfg.Ceiling)
}

// Step judges all nodes of a cluster as they are recorded; self is the judge.
// It forgets nodes that are not among them. Verdicts come in the order of the
// nodes.
func (d *Detector) Step(nodes []api.Node, self api.NodeID, now time.Time) []Transition {
	d.forget(nodes)
	silent := d.silent(nodes, self, now)
	var out []Transition
	for _, n := range nodes {
		if n.ID == self {
			continue
		}
		if to, reason := d.judge(n, nodes, silent, now); to != "" && to != n.State {
			out = append(out, Transition{n.ID, n.State, to, reason})
		}
	}
	return out
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

// silent returns since when each node is silent for longer than it should be.
func (d *Detector) silent(nodes []api.Node, self api.NodeID, now time.Time) map[api.NodeID]time.Time {
	out := make(map[api.NodeID]time.Time)
	for _, n := range nodes {
		if n.ID == self || n.State == api.NodeJoining || n.State == api.NodeRemoved {
			continue
		}
		t := d.track(n.ID, now)
		if now.Sub(t.last) >= d.suspectAfter(t) {
			out[n.ID] = t.last
		}
	}
	return out
}

// judge returns what a node should be recorded as; "" leaves it as it is.
func (d *Detector) judge(n api.Node, nodes []api.Node, silent map[api.NodeID]time.Time, now time.Time) (api.NodeState, string) {
	t := d.track(n.ID, now)
	quiet := now.Sub(t.last)
	switch n.State {
	case api.NodeReady, api.NodeDraining, api.NodeSuspect, api.NodeCutOff:
	default:
		return "", "" // joining and down end with a report, removed never
	}
	if !t.goodbye.IsZero() {
		if now.Sub(t.goodbye) >= d.cfg.PauseGrace {
			return api.NodeDown, fmt.Sprintf("its daemon stopped and did not come back for %s", d.cfg.PauseGrace)
		}
		return api.NodeSuspect, "its daemon stopped on request"
	}
	if _, dark := silent[n.ID]; !dark {
		if n.State == api.NodeSuspect || n.State == api.NodeCutOff {
			return api.NodeReady, "heard again"
		}
		return "", ""
	}
	if quiet < d.downAfter(t) {
		if n.State == api.NodeCutOff {
			return "", ""
		}
		return api.NodeSuspect, fmt.Sprintf("silent for %s", round(quiet))
	}
	if reason := d.majorityDark(n.ID, nodes, silent); reason != "" {
		return api.NodeCutOff, reason
	}
	if reason := d.houseDark(n, nodes, silent); reason != "" {
		if n.State == api.NodeCutOff && now.Sub(n.StateSince) >= d.cfg.HouseGrace {
			return api.NodeDown, fmt.Sprintf("%s, for longer than %s", reason, d.cfg.HouseGrace)
		}
		return api.NodeCutOff, reason
	}
	if !t.broken.IsZero() {
		return api.NodeDown, fmt.Sprintf("silent for %s, and its connection broke", round(quiet))
	}
	return api.NodeDown, fmt.Sprintf("silent for %s", round(quiet))
}

// majorityDark tells whether more than half of the cluster fell silent with a
// node: then the judge may be the one who is alone.
func (d *Detector) majorityDark(id api.NodeID, nodes []api.Node, silent map[api.NodeID]time.Time) string {
	with, members := 0, 0
	for _, n := range nodes {
		if n.State == api.NodeJoining || n.State == api.NodeRemoved {
			continue
		}
		members++
		if d.together(id, n.ID, silent) {
			with++
		}
	}
	if with < 2 || 2*with <= members {
		return ""
	}
	return fmt.Sprintf("%d of %d nodes fell silent together", with, members)
}

// houseDark tells whether a zone of two or more nodes fell silent as a whole.
func (d *Detector) houseDark(n api.Node, nodes []api.Node, silent map[api.NodeID]time.Time) string {
	zone := n.Inventory.Zone
	if zone == "" {
		return ""
	}
	var names []string
	for _, o := range nodes {
		if o.Inventory.Zone != zone || o.State == api.NodeJoining || o.State == api.NodeRemoved {
			continue
		}
		if !d.together(n.ID, o.ID, silent) {
			return ""
		}
		names = append(names, o.Inventory.Name)
	}
	if len(names) < 2 {
		return ""
	}
	return fmt.Sprintf("all of zone %s (%s) fell silent together", zone, strings.Join(names, ", "))
}

// together reports whether two silent nodes were last heard at about the same
// time.
func (d *Detector) together(a, b api.NodeID, silent map[api.NodeID]time.Time) bool {
	sa, oka := silent[a]
	sb, okb := silent[b]
	return oka && okb && sa.Sub(sb).Abs() <= d.cfg.Together
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
