package anchors

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// member is a node that is an anchor by its record, by the Raft group or both.
type member struct {
	id       api.NodeID
	node     api.Node
	known    bool // there is such a node
	server   bool // a member of the Raft group
	voter    bool
	unwanted bool // shall be no anchor
	lost     bool // down, or without its part running, for so long that it is given up
	alive    bool // ready, as far as the leader knows
	running  bool // its copy of the log is of this Raft group
	ready    bool // could get a vote now

	forgetful bool // its log is gone
}

func (m member) name() string {
	if m.known {
		return m.node.Inventory.Name
	}
	return string(m.id)
}

// planner is an input, sorted.
type planner struct {
	cfg     Config
	in      Input
	members []member // by preference, the best first
}

func newPlanner(cfg Config, in Input) *planner {
	p := &planner{cfg: cfg, in: in}
	byID := make(map[api.NodeID]*member)
	get := func(id api.NodeID) *member {
		m := byID[id]
		if m == nil {
			m = &member{id: id}
			byID[id] = m
		}
		return m
	}
	for _, n := range in.Nodes {
		if n.HoldsState() {
			get(n.ID)
		}
	}
	for _, s := range in.Servers {
		m := get(s.ID)
		m.server, m.voter = true, s.Voter
	}
	for _, n := range in.Nodes {
		if m := byID[n.ID]; m != nil {
			m.node, m.known = n, true
		}
	}
	for _, m := range byID {
		p.judge(m)
		p.members = append(p.members, *m)
	}
	slices.SortFunc(p.members, func(a, b member) int {
		return cmp.Or(prefer(a.node, b.node), strings.Compare(string(a.id), string(b.id)))
	})
	return p
}

func (p *planner) judge(m *member) {
	n, now := m.node, p.in.Now
	m.unwanted = !m.known || n.AnchorPolicyInForce() == api.AnchorNever || !n.Anchor
	if m.id == p.in.Self {
		m.alive, m.running = true, true
		return
	}
	m.lost = m.known && gone(n.State) && now.Sub(n.StateSince) >= p.cfg.ReplaceAfter
	m.alive = m.known && well(n.State)
	progress, asked := p.in.Progress[m.id]
	fresh := asked && now.Sub(progress.At) <= p.cfg.Fresh
	m.running = fresh && progress.Running
	m.forgetful = fresh && progress.Lost
	m.lost = m.lost || fresh && !progress.Stopped.IsZero() && now.Sub(progress.Stopped) >= p.cfg.ReplaceAfter
	m.ready = m.server && !m.voter && !m.unwanted && m.alive && m.running && progress.Behind <= p.cfg.MaxBehind
}

func gone(s api.NodeState) bool { return s == api.NodeDown || s == api.NodeCutOff }

func well(s api.NodeState) bool {
	return s == api.NodeReady || s == api.NodeDraining || s == api.NodeCordoned
}

// prefer orders nodes by how good an anchor they make: those that an operator
// wants, public ones, those that have been what they are for longest.
func prefer(a, b api.Node) int {
	return cmp.Or(
		-compareBool(a.AnchorPolicyInForce() == api.AnchorAlways, b.AnchorPolicyInForce() == api.AnchorAlways),
		-compareBool(a.Inventory.Public, b.Inventory.Public),
		a.StateSince.Compare(b.StateSince),
		strings.Compare(string(a.ID), string(b.ID)),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (p *planner) filter(keep func(member) bool) (out []member) {
	for _, m := range p.members {
		if keep(m) {
			out = append(out, m)
		}
	}
	return out
}

func (p *planner) voters() []member { return p.filter(func(m member) bool { return m.voter }) }
func (p *planner) ready() []member  { return p.filter(func(m member) bool { return m.ready }) }

// kept counts the anchors that stay.
func (p *planner) kept() int {
	return len(p.filter(func(m member) bool { return !m.unwanted && !m.lost }))
}

// need is how many anchors there should be without anybody asking for more: a
// cluster that was brought to five votes keeps five.
func (p *planner) need() int {
	return max(usual, len(p.filter(func(m member) bool { return m.voter && !m.unwanted })))
}

// votes is the number of votes that fits the anchors there are. A voter that is
// lost counts for as long as nobody replaces it.
func (p *planner) votes() int {
	n := len(p.filter(func(m member) bool { return !m.unwanted && (!m.lost || m.voter) }))
	switch {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	}
	return 1
}

// heir is the best voter to lead instead of this node.
func (p *planner) heir() (api.NodeID, bool) {
	for _, m := range p.members {
		if m.voter && !m.unwanted && m.alive && m.running && m.id != p.in.Self {
			return m.id, true
		}
	}
	return "", false
}

// leastVoter is the voter to lose its vote first, never the leader.
func (p *planner) leastVoter() (member, bool) {
	voters := p.voters()
	slices.Reverse(voters)
	slices.SortStableFunc(voters, func(a, b member) int { return compareBool(a.alive, b.alive) })
	for _, m := range voters {
		if m.id != p.in.Self {
			return m, true
		}
	}
	return member{}, false
}

// candidates lists the nodes that could be appointed now, the best first;
// among equals those of a zone that has no anchor yet.
func (p *planner) candidates() (out []api.Node) {
	zones := make(map[string]bool)
	for _, m := range p.members {
		if m.known && !m.lost && !m.unwanted {
			zones[m.node.Inventory.Zone] = true
		}
	}
	for _, n := range p.in.Nodes {
		if !n.Anchor && p.eligible(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b api.Node) int {
		return cmp.Or(
			-compareBool(a.AnchorPolicyInForce() == api.AnchorAlways, b.AnchorPolicyInForce() == api.AnchorAlways),
			compareBool(zones[a.Inventory.Zone], zones[b.Inventory.Zone]),
			prefer(a, b),
		)
	})
	return out
}

func (p *planner) eligible(n api.Node) bool {
	if !well(n.State) {
		return false
	}
	switch n.AnchorPolicyInForce() {
	case api.AnchorAlways:
		return true
	case api.AnchorAuto:
		return n.Inventory.Public && p.in.Now.Sub(n.StateSince) >= p.cfg.Settle
	}
	return false
}
