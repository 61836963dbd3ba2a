package state

import (
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// AddAuthority announces the next generation of the cluster's authority. Its
// value is the api.Cluster. That the certificate was signed by the generation
// before it is for the members to check: they believe nothing else.
type AddAuthority struct {
	Certificate []byte    `json:"certificate"` // DER
	Generation  int       `json:"generation"`  // that it is to be: the state must not have moved on
	Urgent      bool      `json:"urgent,omitempty"`
	Now         time.Time `json:"now"`
}

func (c AddAuthority) apply(t *tx) (any, error) {
	cluster, err := t.cluster()
	if err != nil {
		return nil, err
	}
	if len(c.Certificate) == 0 || len(c.Certificate) > MaxCertificate {
		return nil, api.Invalid("certificate", "has %d bytes", len(c.Certificate))
	}
	known := cluster.Generations()
	switch {
	case len(known) >= MaxAuthorities:
		return nil, api.Errorf(api.KindExhausted, "the cluster has had %d authorities, which is the most there can be", MaxAuthorities)
	case c.Generation != len(known)+1:
		return nil, api.Errorf(api.KindConflict, "the cluster has %d authorities by now", len(known))
	case cluster.AuthorityPhase() == api.AuthorityAnnounced:
		return nil, api.Errorf(api.KindConflict, "authority %d has been announced and does not issue yet", len(known)).
			WithHint("wait for it: cloudless anchor rotate-ca --wait")
	}
	cluster.Authorities = append(slices.Clone(known), api.Authority{Certificate: c.Certificate, AnnouncedAt: c.Now, Urgent: c.Urgent})
	t.putCluster(&cluster)
	t.clusterEvent(api.CodeAuthorityAnnounced, c.Now, "AuthorityAnnounced", &cluster, "authority %d of the cluster was announced", c.Generation)
	return cluster, nil
}

// AuthorityStep is what becomes of the newest generation.
type AuthorityStep string

// The steps.
const (
	AuthorityIssues    AuthorityStep = "issues"    // it issues from now on
	AuthorityRetires   AuthorityStep = "retires"   // those before it do not count any more
	AuthorityWithdrawn AuthorityStep = "withdrawn" // it never issued, and is forgotten
)

// AdvanceAuthority takes the newest generation of the authority one step
// further. Its value is the api.Cluster.
type AdvanceAuthority struct {
	Generation int           `json:"generation"` // must be the newest one
	Step       AuthorityStep `json:"step"`
	RetireAt   time.Time     `json:"retire_at,omitzero"` // of "issues": when those before it are retired at the latest
	Reason     string        `json:"reason"`
	Now        time.Time     `json:"now"`
}

func (c AdvanceAuthority) apply(t *tx) (any, error) {
	cluster, err := t.cluster()
	if err != nil {
		return nil, err
	}
	if len(cluster.Authorities) < 2 || c.Generation != len(cluster.Authorities) {
		return nil, api.Errorf(api.KindConflict, "authority %d is not the newest one", c.Generation)
	}
	want := api.AuthorityAnnounced
	if c.Step == AuthorityRetires {
		want = api.AuthorityIssuing
	}
	if phase := cluster.AuthorityPhase(); phase != want {
		return nil, api.Errorf(api.KindConflict, "authority %d is %s", c.Generation, phase)
	}
	cluster.Authorities = slices.Clone(cluster.Authorities)
	newest := len(cluster.Authorities) - 1
	switch c.Step {
	case AuthorityIssues:
		if !c.RetireAt.After(c.Now) {
			return nil, api.Invalid("retire_at", "is not after now")
		}
		cluster.Authorities[newest].IssuesSince = c.Now
		for i := range newest {
			if a := &cluster.Authorities[i]; a.RetireAt.IsZero() || cluster.Authorities[newest].Urgent {
				a.RetireAt = c.RetireAt
			}
		}
		t.clusterEvent(api.CodeAuthorityIssues, c.Now, "AuthorityIssues", &cluster,
			"authority %d issues the cluster's certificates: %s; those before it count until %s at the latest",
			c.Generation, c.Reason, c.RetireAt.UTC().Format(time.RFC3339))
	case AuthorityRetires:
		for i := range newest {
			if a := &cluster.Authorities[i]; a.RetiredAt.IsZero() {
				a.RetiredAt = c.Now
			}
		}
		t.clusterEvent(api.CodeAuthorityRetired, c.Now, "AuthorityRetired", &cluster,
			"only certificates of authority %d count from now on: %s", c.Generation, c.Reason)
	case AuthorityWithdrawn:
		cluster.Authorities = cluster.Authorities[:newest]
		t.clusterEvent(api.CodeAuthorityWithdrawn, c.Now, "AuthorityWithdrawn", &cluster,
			"authority %d was withdrawn before it issued anything: %s", c.Generation, c.Reason)
	default:
		return nil, api.Invalid("step", "%q is unknown", clip(string(c.Step)))
	}
	t.putCluster(&cluster)
	return cluster, nil
}

// SetNodeProblem records what a person has to mend about a node, "" when it is
// mended. Its value is the api.Node.
type SetNodeProblem struct {
	ID      api.NodeID `json:"id"`
	Problem string     `json:"problem"`
	Now     time.Time  `json:"now"`
}

func (c SetNodeProblem) apply(t *tx) (any, error) {
	old := nodes.get(t.txn, string(c.ID))
	if old == nil {
		return nil, notFound("node", string(c.ID))
	}
	n := *old
	n.Problem = clip(c.Problem)
	if n.Problem == old.Problem {
		return *old, nil
	}
	n.Version = t.index
	nodes.put(t, &n)
	switch {
	case n.Problem == "":
		t.nodeEvent(api.CodeNodeSingle, c.Now, "Single", &n, "only one device has the identity of node %s again", n.Inventory.Name)
	case old.Problem == "":
		t.nodeEvent(api.CodeNodeDuplicated, c.Now, "Duplicated", &n, "node %s: %s", n.Inventory.Name, n.Problem)
	}
	return n, nil
}

// cluster returns a copy of the cluster's record.
func (t *tx) cluster() (api.Cluster, error) {
	rows := clusters.all(t.txn)
	if len(rows) == 0 {
		return api.Cluster{}, notFound("cluster", "")
	}
	return *rows[0], nil
}

func (t *tx) putCluster(c *api.Cluster) {
	c.Version = t.index
	clusters.put(t, c)
}

func (t *tx) clusterEvent(code api.Code, now time.Time, reason string, c *api.Cluster, format string, args ...any) {
	t.event(code, now, reason, api.Object{Kind: "cluster", Name: c.Name}, "", format, args...)
}
