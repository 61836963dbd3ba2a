package liveness

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// scene is the cluster as one Step sees it.
type scene struct {
	d     *Detector
	nodes []api.Node
	self  api.NodeID
	now   time.Time

	members int                 // that count in a majority: those that are not down
	doubted []int               // silent for longer than their spacing explains
	dark    map[api.NodeID]bool // silent for long enough to be suspect
	silent  []time.Time         // when the dark members were last heard, in order
	zones   map[string][]int    // members; nil when nobody is dark
	uneasy  int                 // members that were much too late, of late …
	ailing  int                 // … and of those, members whose paths are not well
	fallen  int                 // nodes that have just died
	failing []api.NodeID        // nodes whose paths are of no use, to be given up now
	dying   map[api.NodeID]bool // judged down in this step, or would be if it need not wait for others
}

// counts tells whether a node in that state is a member that could be missed.
func counts(s api.NodeState) bool {
	return s != api.NodeJoining && s != api.NodeRemoved && s != api.NodeDown
}

// observed tells whether silence means something in a state: joining and down
// end with a report, removed never.
func observed(s api.NodeState) bool {
	switch s {
	case api.NodeReady, api.NodeDraining, api.NodeSuspect, api.NodeCutOff:
		return true
	}
	return false
}

// serves tells whether a node in that state is up.
func serves(s api.NodeState) bool {
	return s == api.NodeReady || s == api.NodeDraining || s == api.NodeCordoned
}

// look finds the silent ones.
func (d *Detector) look(nodes []api.Node, self api.NodeID, now time.Time) *scene {
	s := &scene{d: d, nodes: nodes, self: self, now: now, dying: make(map[api.NodeID]bool)}
	for i := range nodes {
		n := &nodes[i]
		if !counts(n.State) {
			continue
		}
		s.members++
		if n.ID == self {
			continue
		}
		t := d.track(n.ID, now)
		quiet := now.Sub(t.last)
		if quiet < d.doubtAfter(t) {
			continue
		}
		s.doubted = append(s.doubted, i)
		if quiet < d.suspectAfter(t) {
			continue
		}
		if s.dark == nil {
			s.dark = make(map[api.NodeID]bool)
		}
		s.dark[n.ID] = true
		s.silent = append(s.silent, t.last)
	}
	s.useless()
	if len(s.silent) == 0 {
		return s
	}
	slices.SortFunc(s.silent, time.Time.Compare)
	s.zones = make(map[string][]int)
	for i := range nodes {
		if zone := nodes[i].Inventory.Zone; zone != "" && counts(nodes[i].State) {
			s.zones[zone] = append(s.zones[zone], i)
		}
	}
	return s
}

// judge returns what a node should be recorded as; "" leaves it as it is.
func (s *scene) judge(i int) (api.NodeState, string) {
	n := &s.nodes[i]
	if !observed(n.State) {
		return "", ""
	}
	t := s.d.track(n.ID, s.now)
	if !t.goodbye.IsZero() {
		if s.now.Sub(t.goodbye) >= s.d.cfg.PauseGrace {
			return api.NodeDown, fmt.Sprintf("its daemon stopped and did not come back for %s", s.d.cfg.PauseGrace)
		}
		return api.NodeSuspect, "its daemon stopped on request"
	}
	quiet := s.now.Sub(t.last)
	if n.Unstable && n.State == api.NodeSuspect {
		return s.probation(n, t, quiet)
	}
	if slices.Contains(s.failing, n.ID) {
		return api.NodeDown, t.weary()
	}
	if !s.dark[n.ID] {
		if n.State == api.NodeSuspect || n.State == api.NodeCutOff {
			return api.NodeReady, "heard again"
		}
		return "", ""
	}
	if quiet < s.d.downAfter(t, s.d.cfg.DownFloor, s.now) {
		return stay(n, fmt.Sprintf("silent for %s", round(quiet)))
	}
	to, reason := s.sentence(n, t, quiet)
	if to == api.NodeDown && quiet < s.d.cfg.Ceiling && s.company(t) {
		return stay(n, fmt.Sprintf("silent for %s, while others come and go", round(quiet)))
	}
	return to, reason
}

// stay keeps a node out of service without a verdict.
func stay(n *api.Node, reason string) (api.NodeState, string) {
	if n.State == api.NodeCutOff {
		return "", ""
	}
	return api.NodeSuspect, reason
}

// sentence judges a node whose silence has lasted.
func (s *scene) sentence(n *api.Node, t *track, quiet time.Duration) (api.NodeState, string) {
	found, witness := s.find(t)
	if found == farSight {
		return api.NodeSuspect, fmt.Sprintf("silent for %s, but %s reaches it", round(quiet), s.name(witness))
	}
	if with := s.fellWith(t.last); s.most(with) {
		t.inquiry.together = s.now
		return api.NodeCutOff, fmt.Sprintf("%d of %d nodes fell silent together", with, s.members)
	}
	if reason := s.houseDark(n, t); reason != "" {
		t.inquiry.together = s.now
		return api.NodeCutOff, reason
	}
	switch found {
	case onlyLAN:
		return api.NodeCutOff, fmt.Sprintf("silent for %s, but %s, on its LAN, sees it", round(quiet), s.name(witness))
	case frozen:
		if quiet < s.d.downAfter(t, s.d.cfg.FrozenFloor, s.now) {
			return stay(n, fmt.Sprintf("its daemon has been silent for %s, but %s reaches its device", round(quiet), s.name(witness)))
		}
		return api.NodeDown, fmt.Sprintf("its daemon has been silent for %s, though %s reaches its device", round(quiet), s.name(witness))
	case gone:
		reason := fmt.Sprintf("silent for %s, and not reached by %s", round(quiet), s.naysayers(t))
		if !t.inquiry.deniedByLAN() && s.mayFollow(n, t) {
			return "", ""
		}
		return api.NodeDown, reason
	case alone:
		return s.lonely(n, t, quiet)
	}
	return stay(n, fmt.Sprintf("silent for %s, witnesses are being asked", round(quiet)))
}

// lonely judges a node by its silence alone.
func (s *scene) lonely(n *api.Node, t *track, quiet time.Duration) (api.NodeState, string) {
	floor, reason := s.d.cfg.LonelyFloor, fmt.Sprintf("silent for %s, and nobody else can be asked", round(quiet))
	if !t.broken.IsZero() {
		floor, reason = s.d.cfg.BrokenFloor, fmt.Sprintf("silent for %s, and its connection broke", round(quiet))
	}
	if quiet < s.d.downAfter(t, floor, s.now) {
		return stay(n, fmt.Sprintf("silent for %s", round(quiet)))
	}
	if s.mayFollow(n, t) {
		return "", ""
	}
	return api.NodeDown, reason
}

// mayFollow tells whether a node was cut off together with others who are back, so
// recently that it may still come after them.
func (s *scene) mayFollow(n *api.Node, t *track) bool {
	return n.State == api.NodeCutOff && s.now.Sub(t.inquiry.together) < s.d.cfg.ReturnGrace
}

// fellWith counts the dark nodes that were last heard at about the same time.
func (s *scene) fellWith(last time.Time) int {
	from, _ := slices.BinarySearchFunc(s.silent, last.Add(-s.d.cfg.Together), time.Time.Compare)
	to, _ := slices.BinarySearchFunc(s.silent, last.Add(s.d.cfg.Together+1), time.Time.Compare)
	return to - from
}

// most tells whether that many of the members are so many that it may be the
// judge who is alone.
func (s *scene) most(n int) bool { return n >= 2 && 2*n > s.members }

// houseDark tells whether a zone of two or more nodes fell silent as a whole.
func (s *scene) houseDark(n *api.Node, t *track) string {
	house := s.zones[n.Inventory.Zone]
	if n.Inventory.Zone == "" || len(house) < 2 {
		return ""
	}
	var names []string
	for _, i := range house {
		o := &s.nodes[i]
		if !s.dark[o.ID] || s.d.tracks[o.ID].last.Sub(t.last).Abs() > s.d.cfg.Together {
			return ""
		}
		names = append(names, o.Inventory.Name)
	}
	if len(names) > 5 {
		names = append(names[:4], fmt.Sprintf("%d more", len(names)-4))
	}
	return fmt.Sprintf("all of zone %s (%s) fell silent together", n.Inventory.Zone, strings.Join(names, ", "))
}

// hold tells whether a death should wait for those who fell silent at the same
// time and are not judged yet, so that what happened at once is one change of
// the cluster: for those who are dark, and when there are any, also for those
// who are only in doubt yet. It waits for little more than one heartbeat.
func (s *scene) hold(i int) bool {
	t := s.d.tracks[s.nodes[i].ID]
	if t == nil || !t.goodbye.IsZero() || s.nodes[i].State == api.NodeCutOff || slices.Contains(s.failing, s.nodes[i].ID) {
		return false
	}
	if s.now.Sub(t.last) < s.d.downAfter(t, s.d.cfg.DownFloor, s.now)+s.d.interval*7/5 && s.crowd(t) {
		return true
	}
	if t.inquiry.due.IsZero() {
		t.inquiry.due = s.now
	}
	patience := s.d.interval*5/4 + 250*time.Millisecond
	if s.now.Sub(t.inquiry.due) >= patience {
		return false
	}
	dark, open := 0, false
	for _, j := range s.doubted {
		o := &s.nodes[j]
		other := s.d.tracks[o.ID]
		if j == i || !observed(o.State) || o.Unstable || !other.goodbye.IsZero() || other.last.Sub(t.last).Abs() > patience {
			continue
		}
		if s.dark[o.ID] {
			dark++
			if s.undecided(other) {
				return true
			}
		} else {
			open = true
		}
	}
	return dark > 0 && open
}

// undecided tells whether a dark node may be judged dead in a moment.
func (s *scene) undecided(t *track) bool {
	if s.company(t) {
		return false
	}
	switch found, _ := s.find(t); found {
	case waiting:
		return true
	case gone:
		return s.now.Sub(t.last) < s.d.downAfter(t, s.d.cfg.DownFloor, s.now)
	}
	return false
}

// naysayers names the witnesses that did not reach a node.
func (s *scene) naysayers(t *track) string {
	var names []string
	for _, a := range t.inquiry.asked {
		if a.answer && !a.reached {
			names = append(names, s.name(a.id))
		}
	}
	return strings.Join(names, ", ")
}

// name is how people know a node.
func (s *scene) name(id api.NodeID) string {
	for i := range s.nodes {
		if n := &s.nodes[i]; n.ID == id && n.Inventory.Name != "" {
			return n.Inventory.Name
		}
	}
	return string(id)
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
