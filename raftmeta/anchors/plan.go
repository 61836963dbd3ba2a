package anchors

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Config is how patient and how generous the plan is.
type Config struct {
	Settle       time.Duration // a public node must have been ready for this long to be chosen unasked; default 10 min
	ReplaceAfter time.Duration // a node that has been down for this long is given up as an anchor; default 10 min
	MaxBehind    uint64        // entries that a standby may lack when it gets its vote; default 256
	Fresh        time.Duration // how old what is known of an anchor's progress may be; default 10 s
}

// maxAnchors bounds the anchors: five voters and two standbys.
const maxAnchors = 7

// usual is the number of anchors that the cluster grows to unasked.
const usual = 3

func (c Config) withDefaults() Config {
	if c.Settle <= 0 {
		c.Settle = 10 * time.Minute
	}
	if c.ReplaceAfter <= 0 {
		c.ReplaceAfter = 10 * time.Minute
	}
	if c.MaxBehind == 0 {
		c.MaxBehind = 256
	}
	if c.Fresh <= 0 {
		c.Fresh = 10 * time.Second
	}
	return c
}

// Server is a member of the Raft group.
type Server struct {
	ID    api.NodeID
	Voter bool
}

// Progress is how far an anchor's copy of the log is.
type Progress struct {
	Running bool      // it takes part in this Raft group
	Stopped time.Time // since when it does not although its node is well; zero while it does
	Lost    bool      // its log is gone or damaged: its vote is worth nothing
	Behind  uint64    // entries that it lacks
	At      time.Time
}

// Input is what a plan is made from.
type Input struct {
	Self     api.NodeID // the leader, who plans
	Nodes    []api.Node
	Servers  []Server
	Progress map[api.NodeID]Progress // of the other anchors
	Now      time.Time
}

// Kind says what a step does.
type Kind string

// The kinds of step.
const (
	Appoint  Kind = "appoint"  // record that a node becomes an anchor: it gets the role and the authority
	Dismiss  Kind = "dismiss"  // record that it is none any more: it wipes both
	Record   Kind = "record"   // make the record say whether it has a vote
	Follow   Kind = "follow"   // send it the log
	Vote     Kind = "vote"     // give it a vote
	Demote   Kind = "demote"   // take its vote, leave it the log
	Expel    Kind = "expel"    // take it out of the Raft group
	Transfer Kind = "transfer" // make it the leader
)

// Step is something to do now.
type Step struct {
	Kind   Kind
	Node   api.NodeID
	Voter  bool   // for Record
	Reason string // for people
}

// Plan returns what to do now. The steps may be done in their order, and a
// step that fails ends the round.
func (c Config) Plan(in Input) []Step {
	p := newPlanner(c.withDefaults(), in)
	steps := p.records()
	steps = append(steps, p.dismissals()...)
	steps = append(steps, p.appointments()...)
	if s, ok := p.change(); ok {
		steps = append(steps, s)
	}
	return steps
}

// records brings the records in line with the Raft group.
func (p *planner) records() (steps []Step) {
	for _, m := range p.members {
		if m.known && m.node.Voter != m.voter {
			steps = append(steps, Step{Kind: Record, Node: m.id, Voter: m.voter})
		}
	}
	return steps
}

// dismissals lists the anchors that have no place in the Raft group any more.
func (p *planner) dismissals() (steps []Step) {
	for _, m := range p.members {
		if !m.known || !m.node.Anchor || m.server {
			continue
		}
		switch {
		case m.unwanted:
			steps = append(steps, Step{Kind: Dismiss, Node: m.id, Reason: "as an operator decided"})
		case m.lost && p.kept() >= p.need():
			steps = append(steps, Step{Kind: Dismiss, Node: m.id, Reason: "it was down for too long"})
		}
	}
	return steps
}

// appointments chooses new anchors: those that an operator wants, and public
// ones until there are enough.
func (p *planner) appointments() (steps []Step) {
	have := p.kept()
	for _, n := range p.candidates() {
		switch {
		case have >= maxAnchors:
			return steps
		case n.AnchorPolicyInForce() == api.AnchorAlways:
			steps = append(steps, Step{Kind: Appoint, Node: n.ID, Reason: "as an operator decided"})
			have++
		case have < p.need():
			steps = append(steps, Step{Kind: Appoint, Node: n.ID, Reason: "the cluster has too few, and it is public and steady"})
			have++
		}
	}
	return steps
}

// change returns the next change of the Raft group.
func (p *planner) change() (Step, bool) {
	for _, next := range []func() (Step, bool){p.expelForgetful, p.expelStandby, p.follow, p.expelVoter, p.replaceLost, p.balance} {
		if s, ok := next(); ok {
			return s, true
		}
	}
	return Step{}, false
}

// expelForgetful takes an anchor out whose log is gone: it cannot vote, and
// must not before the group does without it. Afterwards it follows anew. Its
// vote is dead already, so nothing becomes less safe.
func (p *planner) expelForgetful() (Step, bool) {
	for _, m := range p.members {
		if m.server && m.forgetful {
			return Step{Kind: Expel, Node: m.id, Reason: "its log is lost, it begins anew"}, true
		}
	}
	return Step{}, false
}

// expelStandby takes a standby out that should not be one.
func (p *planner) expelStandby() (Step, bool) {
	for _, m := range p.members {
		if !m.server || m.voter {
			continue
		}
		switch {
		case m.unwanted:
			return Step{Kind: Expel, Node: m.id, Reason: "it shall be no anchor"}, true
		case m.lost && p.kept() >= p.need():
			return Step{Kind: Expel, Node: m.id, Reason: "it was down for too long"}, true
		}
	}
	return Step{}, false
}

// follow lets an appointed node follow once its part runs.
func (p *planner) follow() (Step, bool) {
	for _, m := range p.members {
		if !m.server && m.known && m.node.Anchor && !m.unwanted && m.running {
			return Step{Kind: Follow, Node: m.id, Reason: "it has the authority and waits for the log"}, true
		}
	}
	return Step{}, false
}

// expelVoter takes a voter out that shall be no anchor; a ready standby takes
// its place first, so that the majority never depends on fewer nodes.
func (p *planner) expelVoter() (Step, bool) {
	for _, m := range p.members {
		if !m.voter || !m.unwanted {
			continue
		}
		ready, voters := p.ready(), p.voters()
		odd := len(voters)%2 == 1
		switch {
		case m.id == p.in.Self:
			if heir, ok := p.heir(); ok {
				return Step{Kind: Transfer, Node: heir, Reason: "the leader shall be no anchor"}, true
			}
			if len(ready) > 0 {
				return Step{Kind: Vote, Node: ready[0].id, Reason: "it takes the leader's place"}, true
			}
		case odd && m.alive && len(ready) > 0:
			return Step{Kind: Vote, Node: ready[0].id, Reason: "it takes the place of " + m.name()}, true
		default:
			return Step{Kind: Expel, Node: m.id, Reason: "it shall be no anchor"}, true
		}
	}
	return Step{}, false
}

// replaceLost takes the vote of a voter that has been down for long, when
// another one is ready. It goes first and the other comes second: with four
// votes and one of them dead, one more failure would stop the cluster.
func (p *planner) replaceLost() (Step, bool) {
	if len(p.ready()) == 0 {
		return Step{}, false
	}
	for _, m := range p.members {
		if m.voter && m.lost && m.id != p.in.Self {
			return Step{Kind: Expel, Node: m.id, Reason: "it was down for too long"}, true
		}
	}
	return Step{}, false
}

// balance brings the number of votes to 1, 3 or 5.
func (p *planner) balance() (Step, bool) {
	votes, want, ready := len(p.voters()), p.votes(), p.ready()
	missing := want - votes
	switch {
	case missing > 0 && len(ready) > 0 && (votes%2 == 0 || len(ready) >= 2):
		return Step{Kind: Vote, Node: ready[0].id, Reason: "it has caught up"}, true
	case missing < 0 || votes%2 == 0:
		if m, ok := p.leastVoter(); ok {
			return Step{Kind: Demote, Node: m.id, Reason: "an even number of votes is worse than one less"}, true
		}
	}
	return Step{}, false
}
