package place

import (
	"fmt"
	"math"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Weights say how much each term of the score counts.
type Weights struct {
	Locality    float64 `json:"locality"`
	Reliability float64 `json:"reliability"`
	Cost        float64 `json:"cost"`
	Utilisation float64 `json:"utilisation"`
	Network     float64 `json:"network"` // a penalty
}

// DefaultWeights let utilisation lead, since it alone decides how much fits
// into the cluster.
var DefaultWeights = Weights{Locality: 1, Reliability: 1, Cost: 0.5, Utilisation: 2, Network: 1}

func (w Weights) orDefault() Weights {
	if w == (Weights{}) {
		return DefaultWeights
	}
	return w
}

// Terms are the five terms of a node's score, each from 0 to 1.
type Terms struct {
	Locality    float64 `json:"locality"`    // share of the wishes that the node grants, by their weight: see wishes
	Reliability float64 `json:"reliability"` // as observed; 0.5 when unknown
	Cost        float64 `json:"cost"`        // 1 = cheap to run there; 0.5 when unknown
	Utilisation float64 `json:"utilisation"` // binpack: how full the node would be; spread: how empty
	Network     float64 `json:"network"`     // how bad the path to the node is
}

// Score returns S.
func (w Weights) Score(t Terms) float64 {
	return w.Locality*t.Locality + w.static(staticTerms{t.Reliability, t.Cost, t.Network}) + w.Utilisation*t.Utilisation
}

func (t Terms) String() string {
	return fmt.Sprintf("locality %.2f, reliability %.2f, cost %.2f, utilisation %.2f, network penalty %.2f",
		t.Locality, t.Reliability, t.Cost, t.Utilisation, t.Network)
}

// staticTerms are those that no request changes.
type staticTerms struct{ reliability, cost, network float64 }

func (w Weights) static(t staticTerms) float64 {
	return w.Reliability*t.reliability + w.Cost*t.cost - w.Network*t.network
}

const unknown = 0.5

func staticTermsOf(n *api.Node, facts Facts) staticTerms {
	t := staticTerms{unknown, costOf(n), networkOf(facts)}
	if facts.Reliability > 0 {
		t.reliability = min(facts.Reliability, 1)
	}
	return t
}

// costOf reads the label "cost" (low, medium, high), else "power" (mains,
// battery).
func costOf(n *api.Node) float64 {
	switch v, _ := n.Label("cost"); v {
	case "low":
		return 1
	case "high":
		return 0
	case "medium":
		return unknown
	}
	switch v, _ := n.Label("power"); v {
	case "mains":
		return 1
	case "battery":
		return 0
	}
	return unknown
}

// slowRTT is the round trip at which a path cannot get worse: beyond it people
// notice every click.
const slowRTT = 250 * time.Millisecond

// networkOf is one half for the class of the path and one half for its round
// trip. An unknown path counts as a direct one of middling speed.
func networkOf(facts Facts) float64 {
	penalty := 0.0
	switch facts.Path {
	case api.PathRelayed, api.PathNone:
		penalty = 0.5
	case "":
		return 0.25
	}
	return penalty + 0.5*min(1, float64(facts.RTT)/float64(slowRTT))
}

// imbalance is how much an unbalanced rest counts against the length of the
// rest; 0 is the plain L2 residual. It was chosen, and so was the form of
// packed, by trying some thirty variants on seeds 0–39 of the known-optimum
// generator: uneven pieces pack best at 1.5 and worse on both sides, even ones
// at 2. packing_test.go measures on other seeds.
const imbalance = 1.5

// packed is the utilisation term of binpack: how well a node would be filled.
// Counted against it are the length of the vector of what would be left, cpu
// and memory as shares of the node (the L2 residual), and how unbalanced that
// rest is, since much of one without the other is of no use to anybody. The
// imbalance counts more the fuller the node gets: on an empty one there is time
// to mend it.
func packed(cpuLeft, memoryLeft float64) float64 {
	length := math.Sqrt(cpuLeft*cpuLeft + memoryLeft*memoryLeft)
	unbalanced := math.Abs(cpuLeft-memoryLeft) / (0.1 + cpuLeft + memoryLeft)
	return 1 - (length+imbalance*(1-min(cpuLeft, memoryLeft))*unbalanced)/(math.Sqrt2+imbalance)
}

// emptied is the utilisation term of spread: the share of the node that would
// be left.
func emptied(cpuLeft, memoryLeft float64) float64 { return (cpuLeft + memoryLeft) / 2 }

// perUnit turns amounts of a node into shares of it.
type perUnit struct{ cpu, memory float64 }

func inverse(capacity int64) float64 {
	if capacity <= 0 {
		return 0
	}
	return 1 / float64(capacity)
}
