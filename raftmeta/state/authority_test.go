package state

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func (c *cluster) found() {
	c.t.Helper()
	c.must(CreateCluster{Cluster: api.Cluster{ID: "cid", Name: "home", CA: []byte("ca-1"), CreatedAt: epoch}})
}

func (c *cluster) record() api.Cluster {
	c.t.Helper()
	row, ok := c.View().Cluster()
	if !ok {
		c.t.Fatal("there is no record of the cluster")
	}
	return row
}

func (c *cluster) wantAuthority(phase api.AuthorityPhase, issuer, oldest int) {
	c.t.Helper()
	row := c.record()
	if row.AuthorityPhase() != phase || row.IssuingAuthority() != issuer || row.OldestAuthority() != oldest {
		c.t.Fatalf("the authority is %s, %d issues, from %d on they count; want %s, %d, %d",
			row.AuthorityPhase(), row.IssuingAuthority(), row.OldestAuthority(), phase, issuer, oldest)
	}
}

func TestAuthorityChangesStepByStep(t *testing.T) {
	c := newCluster(t)
	c.refuse(api.KindNotFound, AddAuthority{Certificate: []byte("ca-2"), Generation: 2, Now: c.now})
	c.found()
	c.wantAuthority(api.AuthoritySettled, 1, 1)

	c.refuse(api.KindInvalid, AddAuthority{Generation: 2, Now: c.now})
	c.refuse(api.KindInvalid, AddAuthority{Generation: 2, Certificate: make([]byte, MaxCertificate+1), Now: c.now})
	c.refuse(api.KindConflict, AddAuthority{Certificate: []byte("ca-3"), Generation: 3, Now: c.now})
	c.must(AddAuthority{Certificate: []byte("ca-2"), Generation: 2, Now: c.now})
	c.wantAuthority(api.AuthorityAnnounced, 1, 1)
	c.refuse(api.KindConflict, AddAuthority{Certificate: []byte("ca-3"), Generation: 3, Now: c.now})
	c.refuse(api.KindConflict, AdvanceAuthority{Generation: 2, Step: AuthorityRetires, Now: c.now})
	c.refuse(api.KindConflict, AdvanceAuthority{Generation: 1, Step: AuthorityIssues, RetireAt: c.now.Add(time.Hour), Now: c.now})
	c.refuse(api.KindInvalid, AdvanceAuthority{Generation: 2, Step: AuthorityIssues, Now: c.now})

	end := c.now.Add(15 * 24 * time.Hour)
	c.must(AdvanceAuthority{Generation: 2, Step: AuthorityIssues, RetireAt: end, Reason: "all know it", Now: c.now})
	c.wantAuthority(api.AuthorityIssuing, 2, 1)
	if row := c.record(); !row.Authorities[0].RetireAt.Equal(end) || string(row.Authorities[0].Certificate) != "ca-1" {
		t.Errorf("the founding authority is %+v", row.Authorities[0])
	}
	c.refuse(api.KindConflict, AdvanceAuthority{Generation: 2, Step: AuthorityIssues, RetireAt: end, Now: c.now})
	c.refuse(api.KindConflict, AdvanceAuthority{Generation: 2, Step: AuthorityWithdrawn, Now: c.now})

	c.must(AdvanceAuthority{Generation: 2, Step: AuthorityRetires, Reason: "all have it", Now: c.now})
	c.wantAuthority(api.AuthoritySettled, 2, 2)
	if string(c.record().CA) != "ca-1" {
		t.Error("the cluster's founding CA changed, and with it the cluster's ID")
	}
}

func TestAnnouncedAuthorityCanBeWithdrawn(t *testing.T) {
	c := newCluster(t)
	c.found()
	c.must(AddAuthority{Certificate: []byte("ca-2"), Generation: 2, Now: c.now})
	c.must(AdvanceAuthority{Generation: 2, Step: AuthorityWithdrawn, Reason: "its key is lost", Now: c.now})
	c.wantAuthority(api.AuthoritySettled, 1, 1)
	c.must(AddAuthority{Certificate: []byte("ca-2b"), Generation: 2, Now: c.now})
	c.wantAuthority(api.AuthorityAnnounced, 1, 1)
}

func TestAuthoritiesAreBounded(t *testing.T) {
	c := newCluster(t)
	c.found()
	for g := 2; g <= MaxAuthorities; g++ {
		c.must(AddAuthority{Certificate: []byte("ca"), Generation: g, Now: c.now})
		c.must(AdvanceAuthority{Generation: g, Step: AuthorityIssues, RetireAt: c.now.Add(time.Hour), Now: c.now})
	}
	c.refuse(api.KindExhausted, AddAuthority{Certificate: []byte("ca"), Generation: MaxAuthorities + 1, Now: c.now})
}

// An urgent change also shortens the overlap of one that is still under way.
func TestUrgentAuthorityRetiresTheOthersSooner(t *testing.T) {
	c := newCluster(t)
	c.found()
	late, soon := c.now.Add(15*24*time.Hour), c.now.Add(time.Hour)
	c.must(AddAuthority{Certificate: []byte("ca-2"), Generation: 2, Now: c.now})
	c.must(AdvanceAuthority{Generation: 2, Step: AuthorityIssues, RetireAt: late, Now: c.now})
	c.must(AddAuthority{Certificate: []byte("ca-3"), Generation: 3, Urgent: true, Now: c.now})
	c.must(AdvanceAuthority{Generation: 3, Step: AuthorityIssues, RetireAt: soon, Now: c.now})
	for i, a := range c.record().Authorities[:2] {
		if !a.RetireAt.Equal(soon) {
			t.Errorf("authority %d is retired at %v", i+1, a.RetireAt)
		}
	}
}

func TestReportTellsWhatANodeDoesWithTheAuthority(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	use := api.AuthorityUse{Certified: 1, Knows: 2, Holds: 2}
	c.must(ReportNode{Report: api.NodeReport{Node: nodeID("pi"), Incarnation: 1, Authority: use}, Now: c.now})
	if n, _ := c.View().Node(nodeID("pi")); n.Authority != use || n.Version != c.index {
		t.Errorf("the node is %+v", n)
	}
}

func TestProblemOfANodeIsToldOnce(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	events := func(cmd SetNodeProblem) int { return len(c.must(cmd).Events) }
	problem := SetNodeProblem{ID: nodeID("pi"), Problem: "two devices have its identity", Now: c.now}
	if n := events(problem); n != 1 {
		t.Errorf("%d events", n)
	}
	if n := events(problem); n != 0 {
		t.Errorf("the same again: %d events", n)
	}
	if n := events(SetNodeProblem{ID: nodeID("pi"), Now: c.now}); n != 1 {
		t.Errorf("mended: %d events", n)
	}
	c.refuse(api.KindNotFound, SetNodeProblem{ID: nodeID("nobody"), Problem: "x", Now: c.now})
}
