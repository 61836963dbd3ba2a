package node

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// keyring is the authority as an anchor has it: what is in memory is on disk.
type keyring struct {
	dir *dataDir

	mu  sync.Mutex // held while it changes
	now atomic.Pointer[identity.Authority]
}

func newKeyring(dir *dataDir, authority *identity.Authority) *keyring {
	k := &keyring{dir: dir}
	k.now.Store(authority)
	return k
}

func (k *keyring) authority() *identity.Authority { return k.now.Load() }

// change replaces the authority by what f makes of it.
func (k *keyring) change(f func(*identity.Authority) (*identity.Authority, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, err := f(k.now.Load())
	if err != nil || next == k.now.Load() {
		return err
	}
	if err := sealAuthority(k.dir, next); err != nil {
		return err
	}
	k.now.Store(next)
	return nil
}

// holds returns the newest generation of the cluster whose key is here. A
// generation that was announced and withdrawn has the number of another one.
func (k *keyring) holds(c api.Cluster) int {
	a := k.authority()
	lineage, same := a.Lineage(), 0
	for i, g := range c.Generations() {
		if i == len(lineage) || !bytes.Equal(lineage[i], g.Certificate) {
			break
		}
		same = i + 1
	}
	return min(same, a.Holds())
}

// issuer returns the authority with the generation issuing that the state says.
func (a *anchor) issuer() (*identity.Authority, error) {
	c, _ := a.raft.Store().View().Cluster() // before there is one, the founding generation issues
	return a.keys.authority().IssuingAs(c.IssuingAuthority())
}

// certify issues a certificate.
func (a *anchor) certify(csr []byte, roles []api.Role, operator string) ([]byte, api.Member, error) {
	authority, err := a.issuer()
	if err != nil {
		return nil, api.Member{}, err
	}
	return authority.Issue(csr, roles, operator, time.Now(), certificateTTL)
}

const (
	rotateEvery = time.Second     // while the authority changes
	restEvery   = 5 * time.Second // while it does not
)

// keepAuthority takes a change of the authority from step to step, while this
// anchor leads.
func (a *anchor) keepAuthority(ctx context.Context) error {
	var settled time.Time
	for {
		wait := restEvery
		if c, ok := a.raft.Store().View().Cluster(); ok && c.AuthorityPhase() != api.AuthoritySettled {
			wait = rotateEvery
			plan := a.planRotation(settled)
			settled = plan.Settled
			if err := a.rotate(ctx, c, plan); err != nil && ctx.Err() == nil && api.KindOf(err) != api.KindConflict {
				a.daemon.log.Warn("a step to change the authority failed", zap.String("step", string(plan.Step)), zap.Error(err))
			}
		}
		if retry.Sleep(ctx, wait) != nil {
			return nil
		}
	}
}

func (a *anchor) planRotation(settled time.Time) identity.Rotation {
	v := a.raft.Store().View()
	c, _ := v.Cluster()
	return identity.PlanRotation(identity.RotationInput{
		Cluster: c, Nodes: v.Nodes(), Held: a.keys.holds(c), Now: time.Now(), Settled: settled,
	})
}

// rotate carries a step out.
func (a *anchor) rotate(ctx context.Context, c api.Cluster, plan identity.Rotation) error {
	step := state.AdvanceAuthority{Generation: len(c.Generations()), Reason: plan.Reason, RetireAt: plan.RetireAt, Now: time.Now()}
	switch plan.Step {
	case identity.RotationIssues:
		step.Step = state.AuthorityIssues
	case identity.RotationRetires:
		step.Step = state.AuthorityRetires
	case identity.RotationWithdraws:
		step.Step = state.AuthorityWithdrawn
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if _, err := a.raft.Propose(ctx, step); err != nil {
		return err
	}
	a.daemon.log.Info("changed the authority", zap.Int("generation", step.Generation), zap.String("step", string(plan.Step)), zap.String("reason", plan.Reason))
	if plan.Step == identity.RotationWithdraws {
		last := c.Generations()[len(c.Generations())-1]
		return a.announceAuthority(ctx, last.Urgent) // with a key that this anchor has
	}
	return nil
}

// announceAuthority makes the next generation. Its key is on the disk of this
// anchor before anybody hears of it.
func (a *anchor) announceAuthority(ctx context.Context, urgent bool) error {
	c, ok := a.raft.Store().View().Cluster()
	if !ok {
		return api.Errorf(api.KindUnavailable, "the cluster is being founded")
	}
	known := len(c.Generations())
	if c.AuthorityPhase() == api.AuthorityAnnounced {
		return api.Errorf(api.KindConflict, "authority %d has been announced and does not issue yet", known).
			WithHint("see what it waits for: cloudless anchor authority")
	}
	now := time.Now()
	err := a.keys.change(func(old *identity.Authority) (*identity.Authority, error) { return old.Upto(known).Succeed(now) })
	if err != nil {
		return err
	}
	lineage := a.keys.authority().Lineage()
	_, err = a.raft.Propose(ctx, state.AddAuthority{
		Certificate: lineage[known], Generation: known + 1, Urgent: urgent, Now: now,
	})
	return err
}

// authorityStatus sums the authority up.
func (a *anchor) authorityStatus(v state.View) (api.AuthorityStatus, error) {
	c, _ := v.Cluster()
	nodes := v.Nodes()
	st := api.AuthorityStatus{Phase: c.AuthorityPhase(), Current: identity.Current(c, nodes)}
	for i, g := range c.Generations() {
		generation := i + 1
		cert, err := identity.ParseAuthority(g.Certificate)
		if err != nil {
			return st, err
		}
		s := api.AuthorityGeneration{
			Authority: g, Generation: generation, NotAfter: cert.NotAfter, Nodes: len(nodes), Issues: generation == c.IssuingAuthority(),
		}
		for _, n := range nodes {
			s.Known += count(n.Authority.Knows >= generation)
			s.Certified += count(n.Authority.Certified == generation)
			s.Holders += count(n.HoldsState() && n.Authority.Holds >= generation)
		}
		st.Generations = append(st.Generations, s)
	}
	if plan := a.planRotation(time.Time{}); plan.Step == identity.RotationWaits {
		st.Waiting = plan.Reason
	}
	return st, nil
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

// followAuthority keeps what this node has of the authority in step with the
// views: an anchor gets the key of a new generation from the leader, and forgets
// those of retired ones.
func (d *daemon) followAuthority(ctx context.Context) error {
	backoff := retry.Backoff{Initial: time.Second, Max: time.Minute}
	for {
		v, known, changed := d.views.watch()
		wait := time.Hour // nothing to do before the next view
		if a := d.office.current(); known && a != nil {
			if err := d.keepKeys(ctx, a, v); err != nil && ctx.Err() == nil {
				wait, changed = backoff.Next(), nil // views may come many times a second
				d.log.Warn("this anchor has no key of the new authority yet", zap.Error(err), zap.Duration("retry_in", wait))
			} else {
				backoff.Reset()
			}
		}
		if !pause(ctx, wait, changed) {
			return nil
		}
	}
}

func (d *daemon) keepKeys(ctx context.Context, a *anchor, v api.ClusterView) error {
	newest := len(v.Cluster.Generations())
	if a.keys.holds(v.Cluster) < newest && v.Leader != d.self {
		ctx, cancel := context.WithTimeout(ctx, enlistWithin)
		defer cancel()
		granted, _, err := d.office.fetchAuthority(ctx, v.Leader, true)
		if err != nil {
			return err
		}
		if err := a.keys.change(func(*identity.Authority) (*identity.Authority, error) { return granted, nil }); err != nil {
			return err
		}
		if held := a.keys.holds(v.Cluster); held < newest {
			return fmt.Errorf("the leader granted %d generations of %d", held, newest)
		}
		d.log.Info("this anchor holds the key of the new authority", zap.Int("generation", newest))
	}
	return a.keys.change(func(old *identity.Authority) (*identity.Authority, error) {
		next, forgot := old.Forget(v.Cluster.OldestAuthority())
		if !forgot {
			return old, nil
		}
		d.log.Info("forgot the keys of retired authorities", zap.Int("oldest", v.Cluster.OldestAuthority()))
		return next, nil
	})
}

// authorityUse is what this node reports of the authority.
func (d *daemon) authorityUse() api.AuthorityUse {
	c := d.views.current().Cluster
	use := api.AuthorityUse{Certified: d.admission.self().Authority, Knows: len(c.Generations())}
	if a := d.office.current(); a != nil {
		use.Holds = a.keys.holds(c)
	}
	return use
}
