package identity

import (
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// rotating is a cluster with a second generation that was announced, or issues,
// an hour ago.
func rotating(issues, urgent bool) api.Cluster {
	second := api.Authority{AnnouncedAt: now.Add(-time.Hour), Urgent: urgent}
	first := api.Authority{AnnouncedAt: now.Add(-1000 * time.Hour), IssuesSince: now.Add(-1000 * time.Hour)}
	if issues {
		second.IssuesSince = now.Add(-time.Hour)
		first.RetireAt = now.Add(100 * time.Hour)
	}
	return api.Cluster{ID: "cid", Authorities: []api.Authority{first, second}}
}

func member(name string, state api.NodeState, anchor bool, use api.AuthorityUse) api.Node {
	n := api.Node{ID: api.NodeID(name), State: state, Anchor: anchor, Authority: use}
	n.Inventory.Name = name
	return n
}

func TestPlanRotation(t *testing.T) {
	all := api.AuthorityUse{Certified: 2, Knows: 2, Holds: 2}
	heard := api.AuthorityUse{Certified: 1, Knows: 2, Holds: 2}
	deaf := api.AuthorityUse{Certified: 1, Knows: 1, Holds: 1}
	fresh := func(c api.Cluster) api.Cluster {
		c.Authorities[1].AnnouncedAt = now.Add(-time.Minute)
		return c
	}
	recently := func(c api.Cluster) api.Cluster {
		c.Authorities[1].AnnouncedAt = now.Add(-time.Second)
		return c
	}
	since := func(c api.Cluster, ago time.Duration) api.Cluster {
		c.Authorities[1].IssuesSince = now.Add(-ago)
		return c
	}
	vps, pi := api.NodeReady, api.NodeReady
	for _, c := range []struct {
		name    string
		cluster api.Cluster
		nodes   []api.Node
		held    int
		settled time.Duration // ago; 0: not seen yet
		step    RotationStep
		reason  string
	}{
		{"settled", api.Cluster{CA: []byte("x")}, []api.Node{member("vps", vps, true, deaf)}, 1, 0, RotationWaits, ""},
		{"all have heard", fresh(rotating(false, false)), []api.Node{member("vps", vps, true, heard), member("pi", pi, false, heard)}, 2, 0, RotationIssues, "every node"},
		{"a node has not", fresh(rotating(false, false)), []api.Node{member("vps", vps, true, heard), member("pi", pi, false, deaf)}, 2, 0, RotationWaits, "pi"},
		{"a node that is down has not", fresh(rotating(false, false)), []api.Node{member("vps", vps, true, heard), member("pi", api.NodeDown, false, deaf)}, 2, 0, RotationIssues, "every node in sight"},
		{"patience ends", rotating(false, false), []api.Node{member("vps", vps, true, heard), member("pi", pi, false, deaf)}, 2, 0, RotationIssues, "without the ear of pi"},
		{"it ends sooner when urgent", fresh(rotating(false, true)), []api.Node{member("vps", vps, true, heard), member("pi", pi, false, deaf)}, 2, 0, RotationIssues, "without the ear of pi"},
		{"but not at once", recently(rotating(false, true)), []api.Node{member("vps", vps, true, heard), member("pi", pi, false, deaf)}, 2, 0, RotationWaits, "pi"},
		{"an anchor has no key, for however long", rotating(false, true), []api.Node{member("vps", vps, true, heard), member("nas", api.NodeDown, true, deaf)}, 2, 0, RotationWaits, "nas (down)"},
		{"the leader has no key", rotating(false, false), []api.Node{member("vps", vps, true, deaf)}, 1, 0, RotationWithdraws, "key"},

		{"a node has an old certificate", rotating(true, false), []api.Node{member("vps", vps, true, all), member("pi", pi, false, heard)}, 2, time.Hour, RotationWaits, "pi"},
		{"one that is away has", since(rotating(true, false), 48*time.Hour), []api.Node{member("vps", vps, true, all), member("pi", api.NodeDown, false, heard)}, 2, time.Hour, RotationWaits, "pi (down)"},
		{"nobody waits for it when urgent", rotating(true, true), []api.Node{member("vps", vps, true, all), member("pi", api.NodeDown, false, heard)}, 2, time.Hour, RotationRetires, "in sight"},
		{"people may have old ones for a day", rotating(true, false), []api.Node{member("vps", vps, true, all)}, 2, 30 * time.Minute, RotationWaits, "people"},
		{"then it retires", since(rotating(true, false), 25*time.Hour), []api.Node{member("vps", vps, true, all)}, 2, 24 * time.Hour, RotationRetires, "every node"},
		{"the last new one has to get around first", since(rotating(true, false), 25*time.Hour), []api.Node{member("vps", vps, true, all)}, 2, 0, RotationWaits, "until"},
		{"also when urgent", rotating(true, true), []api.Node{member("vps", vps, true, all)}, 2, 0, RotationWaits, "until"},
		{"the overlap ends", func() api.Cluster {
			c := rotating(true, false)
			c.Authorities[0].RetireAt = now
			return c
		}(), []api.Node{member("vps", vps, true, all), member("pi", api.NodeDown, false, heard)}, 2, 0, RotationRetires, "overlap"},
	} {
		in := RotationInput{Cluster: c.cluster, Nodes: c.nodes, Held: c.held, Now: now}
		if c.settled > 0 {
			in.Settled = now.Add(-c.settled)
		}
		got := PlanRotation(in)
		if got.Step != c.step || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %s because of %q, want %s because of %q", c.name, got.Step, got.Reason, c.step, c.reason)
		}
		if got.Step == RotationIssues && got.RetireAt.Sub(now) < urgentOverlap {
			t.Errorf("%s: the overlap ends at %v", c.name, got.RetireAt)
		}
	}
}

// Who was away for as long as it may still comes back within the overlap.
func TestOverlapOutlastsTheOfflineGrace(t *testing.T) {
	c := rotating(false, false)
	got := PlanRotation(RotationInput{Cluster: c, Nodes: []api.Node{member("vps", api.NodeReady, true, api.AuthorityUse{Knows: 2, Holds: 2})}, Held: 2, Now: now})
	if got.RetireAt.Sub(now) < MaxTTL+OfflineGrace {
		t.Errorf("the old authority counts until %v", got.RetireAt)
	}
}

func TestRenewEarlySpreads(t *testing.T) {
	if d := RenewEarly(3, 0.999); d > minRenewSpread {
		t.Errorf("a home waits %v", d)
	}
	if d := RenewEarly(5000, 0.5); d < time.Minute || d > 5*time.Minute {
		t.Errorf("one of 5000 nodes waits %v", d)
	}
}
