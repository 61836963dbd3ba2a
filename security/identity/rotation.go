package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// How a change of the authority goes, in time.
const (
	// OfflineGrace is how long a certificate is accepted after its end while no
	// anchor can be reached to renew it, and how long a node may be away and still
	// renew it.
	OfflineGrace = 14 * 24 * time.Hour

	// hearWithin is how long nodes that are in sight may take to hear of a new
	// generation before it issues without them.
	hearWithin = 10 * time.Minute
	// settleFor is how long the last node's new certificate is out before the old
	// ones stop to count: its peers see it within seconds.
	settleFor = time.Minute
	// urgentSettle and urgentOverlap are for a key that others may have.
	urgentSettle  = 20 * time.Second
	urgentHear    = 30 * time.Second
	urgentOverlap = 10 * time.Minute
	// renewSpread is the time per node over which nodes renew early: an anchor
	// issues thousands a second, and has other work.
	renewSpread    = 50 * time.Millisecond
	minRenewSpread = 2 * time.Second
)

// RotationStep is what the leader does next about the authority.
type RotationStep string

// The steps.
const (
	RotationWaits     RotationStep = "wait"
	RotationIssues    RotationStep = "issue"    // the newest generation issues from now on
	RotationRetires   RotationStep = "retire"   // those before it stop to count
	RotationWithdraws RotationStep = "withdraw" // the newest generation has no key: begin anew
)

// RotationInput is what the leader knows.
type RotationInput struct {
	Cluster api.Cluster
	Nodes   []api.Node
	Held    int // the newest generation whose key the leader has
	Now     time.Time
	// Settled is since when every node in sight has a certificate of the newest
	// generation, as the leader saw it; zero: not yet. Rotation returns the next.
	Settled time.Time
}

// Rotation is a decision about the authority, and why.
type Rotation struct {
	Step     RotationStep
	Reason   string // of the step, or what is being waited for
	RetireAt time.Time
	Settled  time.Time
}

// PlanRotation decides how to go on with a change of the authority.
//
// The newest generation issues once every anchor holds its key, in sight or not
// (one that leads later must be able to issue), and every node in sight has
// heard of it; one that is silent at the moment catches up. Those before it are
// retired once every node, in sight or not, has a certificate of the newest one
// and the last old certificate of a person has run out; or at the end of an
// overlap that is longer than any node may be away anyway. When the change is
// urgent nobody waits for who is away.
func PlanRotation(in RotationInput) Rotation {
	generations := in.Cluster.Generations()
	newest := len(generations)
	urgent := generations[newest-1].Urgent
	switch in.Cluster.AuthorityPhase() {
	case api.AuthorityAnnounced:
		return planIssue(in, newest, urgent)
	case api.AuthorityIssuing:
		return planRetire(in, newest, urgent)
	}
	return Rotation{Step: RotationWaits}
}

func planIssue(in RotationInput, newest int, urgent bool) Rotation {
	if in.Held < newest {
		return Rotation{Step: RotationWithdraws, Reason: "the anchor that had its key does not lead any more"}
	}
	without := namesOf(in.Nodes, func(n *api.Node) bool { return n.HoldsState() && n.Authority.Holds < newest })
	if len(without) > 0 {
		return Rotation{Step: RotationWaits, Reason: "anchors that do not hold its key yet: " + list(without)}
	}
	deaf := namesOf(in.Nodes, func(n *api.Node) bool { return inSight(n) && n.State != api.NodeSuspect && n.Authority.Knows < newest })
	announced := in.Cluster.Generations()[newest-1].AnnouncedAt
	patience, overlap := hearWithin, MaxTTL+OfflineGrace
	if urgent {
		patience, overlap = urgentHear, urgentOverlap
	}
	reason := "every node in sight has heard of it"
	if len(deaf) > 0 {
		if in.Now.Sub(announced) < patience {
			return Rotation{Step: RotationWaits, Reason: "nodes that have not heard of it yet: " + list(deaf)}
		}
		reason = fmt.Sprintf("for %v it was announced, without the ear of %s", patience, list(deaf))
	}
	return Rotation{Step: RotationIssues, Reason: reason, RetireAt: in.Now.Add(overlap)}
}

func planRetire(in RotationInput, newest int, urgent bool) Rotation {
	before, since := in.Cluster.Generations()[newest-2], in.Cluster.Generations()[newest-1].IssuesSince
	if !in.Now.Before(before.RetireAt) {
		return Rotation{Step: RotationRetires, Reason: "the overlap is over"}
	}
	late := namesOf(in.Nodes, func(n *api.Node) bool { return n.Authority.Certified < newest && (inSight(n) || !urgent) })
	if len(late) > 0 {
		return Rotation{Step: RotationWaits, Reason: "nodes whose certificate is of an earlier one: " + list(late)}
	}
	settled := in.Settled
	if settled.IsZero() {
		settled = in.Now
	}
	end := settled.Add(settleFor)
	reason := "every node has a certificate of it"
	if urgent {
		end = settled.Add(urgentSettle)
		reason = "every node in sight has a certificate of it"
	} else if people := since.Add(MaxTTL + ClockSkew); people.After(end) {
		end = people
	}
	if in.Now.Before(end) {
		return Rotation{Step: RotationWaits, Settled: settled, Reason: "old certificates of people, until " + end.UTC().Format(time.RFC3339)}
	}
	return Rotation{Step: RotationRetires, Settled: settled, Reason: reason}
}

// Current reports whether every node in sight has a certificate of the newest
// generation.
func Current(c api.Cluster, nodes []api.Node) bool {
	newest := len(c.Generations())
	for i := range nodes {
		if inSight(&nodes[i]) && nodes[i].Authority.Certified < newest {
			return false
		}
	}
	return true
}

// inSight reports whether a node would hear of a change now.
func inSight(n *api.Node) bool {
	switch n.State {
	case api.NodeReady, api.NodeDraining, api.NodeCordoned, api.NodeSuspect:
		return true
	}
	return false
}

func namesOf(nodes []api.Node, want func(*api.Node) bool) []string {
	var names []string
	for i := range nodes {
		if want(&nodes[i]) {
			name := nodes[i].Inventory.Name
			if !inSight(&nodes[i]) {
				name += " (" + string(nodes[i].State) + ")"
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// list names a few, and how many more there are.
func list(names []string) string {
	const few = 5
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// RenewEarly returns how long a node waits before it gets a certificate of a
// generation that has begun to issue: at random, by jitter in [0,1), so that a
// large cluster does not ask its leader all at once.
func RenewEarly(nodes int, jitter float64) time.Duration {
	spread := max(time.Duration(nodes)*renewSpread, minRenewSpread)
	return time.Duration(jitter * float64(spread))
}
