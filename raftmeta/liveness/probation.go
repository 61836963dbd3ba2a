package liveness

import (
	"fmt"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// A node that comes and goes is a worse place for work than none: everything
// that is put on it has to be put elsewhere again. So one that comes back from a
// death, without having restarted, is on probation: it has to be heard without a
// break for twice as long as it was away. Each time it happens again doubles it.
const (
	firstProbation = 30 * time.Second // at most, the first time …
	mostProbation  = 5 * time.Minute  // … and ever
)

// returned notes the end of a silence.
func (t *track) returned(gap time.Duration, now time.Time) {
	if now.Sub(t.back) > memory {
		t.returns = 0
	}
	t.away, t.back = gap, now
	t.returns++
}

// probation is how long a node has to be heard before it takes work again.
func (t *track) probation() time.Duration {
	if t.returns == 0 {
		return 0
	}
	first := min(2*t.away, firstProbation)
	return min(first<<min(t.returns-1, 8), mostProbation)
}

// Returns is asked when a node reports that is recorded as down or unstable. It
// says why the node has to wait before it takes work; "" when it need not: it
// has restarted, or has been steady for long enough.
func (d *Detector) Returns(node api.NodeID, now time.Time) string {
	t := d.tracks[node]
	switch {
	case t == nil:
		return ""
	case now.Sub(t.back) < t.probation():
		return fmt.Sprintf("back after %s; takes work when it has been heard for %s", round(t.away), round(t.probation()))
	case t.arrears.ails():
		return t.weary()
	}
	return ""
}

// probation judges a node that came back from a death. It holds nothing that
// would have to be moved, so its silences are not counted as deaths unless they
// last as long as it has to be heard.
func (s *scene) probation(n *api.Node, t *track, quiet time.Duration) (api.NodeState, string) {
	switch held := t.probation(); {
	case !s.dark[n.ID]:
		if s.now.Sub(t.back) < held || t.arrears.ails() || s.company(t) {
			return "", ""
		}
		return api.NodeReady, fmt.Sprintf("heard for %s without a break", round(s.now.Sub(t.back)))
	case quiet >= max(held, s.d.cfg.Ceiling):
		return api.NodeDown, fmt.Sprintf("silent for %s, soon after it was back", round(quiet))
	}
	return "", ""
}
