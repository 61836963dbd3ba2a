package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// life runs a renewer in virtual time. issue is what an anchor does.
type life struct {
	adm *admission

	mu       sync.Mutex
	attempts []time.Time
	renewed  []time.Time
	away     bool // the anchors are
}

func (l *life) run(t *testing.T, authority *identity.Authority, id api.NodeID, csr []byte) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	r := renewer{due: l.adm.renewal, log: zap.NewNop(), renew: func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.attempts = append(l.attempts, time.Now())
		if l.away {
			return api.Errorf(api.KindUnavailable, "no anchor")
		}
		cert, _, err := authority.Issue(csr, []api.Role{api.RoleNode}, "", time.Now(), certificateTTL)
		if err != nil {
			return err
		}
		l.renewed = append(l.renewed, time.Now())
		return l.adm.replace(cert)
	}}
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the renewer of %s ended with %v", id, err)
		}
	}
}

// soFar returns what has happened.
func (l *life) soFar() (attempts, renewed []time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.attempts), slices.Clone(l.renewed)
}

func (l *life) anchorsAre(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
}

// begin gives a node a certificate as of now.
func begin(t *testing.T) (*life, *identity.Authority, api.NodeID, []byte) {
	t.Helper()
	authority, err := identity.NewAuthority("home", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, id := deviceKey(t)
	csr, err := identity.NewCSR(key, "pi")
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := authority.Issue(csr, []api.Role{api.RoleNode}, "", time.Now(), certificateTTL)
	if err != nil {
		t.Fatal(err)
	}
	adm, err := newAdmission(authority.Certificate(), id, cert, false, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &life{adm: adm}, authority, id, csr
}

func TestCertificatesLiveForADayAndAreRenewedAtRandomInTheSecondHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, authority, id, csr := begin(t)
		leaf, err := identity.Leaf(l.adm.Certificate())
		if err != nil {
			t.Fatal(err)
		}
		life := leaf.NotAfter.Sub(leaf.NotBefore)
		if life > 24*time.Hour {
			t.Errorf("a certificate lives for %v", life)
		}
		start := time.Now()
		stop := l.run(t, authority, id, csr)
		time.Sleep(60 * 24 * time.Hour) // of virtual time
		stop()
		if n := len(l.renewed); n < 60*24/20 || n > 60*24/11 {
			t.Errorf("renewed %d times in 60 days", n)
		}
		var pauses []time.Duration
		for _, at := range l.renewed {
			issued := start.Add(-identity.Backdate) // the life of each begins before its issue
			if part := float64(at.Sub(issued)) / float64(life); part < 0.5 || part > 0.8+float64(2*lookAtClock)/float64(life) {
				t.Errorf("renewed after %.0f %% of its life", 100*part)
			}
			pauses = append(pauses, at.Sub(start).Round(time.Minute))
			start = at
		}
		slices.Sort(pauses)
		if different := len(slices.Compact(pauses)); different < len(l.renewed)/2 {
			t.Errorf("only %d of %d pauses differ", different, len(l.renewed))
		}
	})
}

func TestRenewalIsRetriedWhileTheAnchorsAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, authority, id, csr := begin(t)
		l.anchorsAre(true)
		stop := l.run(t, authority, id, csr)
		defer stop()
		time.Sleep(3 * 24 * time.Hour)
		synctest.Wait()
		attempts, renewed := l.soFar()
		if len(renewed) > 0 || len(attempts) < 10 {
			t.Fatalf("%d attempts, %d renewals", len(attempts), len(renewed))
		}
		for i, at := range attempts[1:] {
			if gap := at.Sub(attempts[i]); gap < renewPause/2 || gap > renewPauseMax*12/10 {
				t.Fatalf("attempt %d came after %v", i+1, gap)
			}
		}
		// Long after the certificate ended the anchors come back.
		if !lapsed(l.adm.self(), time.Now()) {
			t.Fatal("the certificate has not ended yet")
		}
		l.anchorsAre(false)
		time.Sleep(2 * renewPauseMax)
		synctest.Wait()
		if _, renewed := l.soFar(); len(renewed) != 1 || lapsed(l.adm.self(), time.Now()) {
			t.Errorf("renewed %d times within two minutes of their return", len(renewed))
		}
	})
}

func TestAnotherAuthorityMakesNodesRenewEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, authority, id, csr := begin(t)
		next, err := authority.Succeed(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if next, err = next.IssuingAs(2); err != nil {
			t.Fatal(err)
		}
		stop := l.run(t, next, id, csr)
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, renewed := l.soFar(); len(renewed) > 0 {
			t.Fatal("renewed before there was a reason")
		}
		row := clusterWith(next, 2, 1)
		for range 3 { // every view says it again
			if err := l.adm.follow(row, 100); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second) // the spread of a hundred nodes
		synctest.Wait()
		if _, renewed := l.soFar(); len(renewed) != 1 || l.adm.self().Authority != 2 {
			t.Errorf("renewed %d times, the certificate is of authority %d", len(renewed), l.adm.self().Authority)
		}
		if err := l.adm.follow(clusterWith(authority, 1, 1), 100); err != nil {
			t.Errorf("a cluster that was restored from before the change: %v", err)
		}
		if err := l.adm.follow(api.Cluster{CA: []byte("x")}, 100); api.KindOf(err) != api.KindDenied {
			t.Errorf("a view of another cluster: %v", err)
		}
	})
}

// clusterWith is a cluster's record of an authority.
func clusterWith(a *identity.Authority, issuer, oldest int) api.Cluster {
	c := api.Cluster{ID: a.ClusterID(), CA: a.Certificate().Raw}
	for i, der := range a.Lineage() {
		g := api.Authority{Certificate: der, AnnouncedAt: time.Now()}
		if i < issuer {
			g.IssuesSince = time.Now()
		}
		if i+1 < oldest {
			g.RetiredAt = time.Now()
		}
		c.Authorities = append(c.Authorities, g)
	}
	return c
}

// An expired certificate counts on an island only: where no anchor has been seen
// since before it ended, for as long as the grace lasts.
func TestIslands(t *testing.T) {
	const day = 24 * time.Hour
	b := newBureau(t)
	now := time.Now()
	clock := now
	issued := now.Add(-100 * day)
	b.at = func() time.Time { return issued }
	id, cert := b.issue(0, "", api.RoleNode)
	end := issued.Add(certificateTTL)
	operator, operators := b.issue(0, "alice", api.RoleOperator)
	revoked, dead := b.issue(0, "", api.RoleNode)
	for _, c := range []struct {
		name   string
		seen   time.Time // an anchor, last; zero: never
		at     time.Time
		anchor bool // the judge is one
		want   error
		lapsed bool
	}{
		{"before its end", end.Add(-time.Hour), end.Add(-time.Minute), false, nil, false},
		{"a few minutes after it, as clocks differ", end.Add(9 * time.Minute), end.Add(9 * time.Minute), false, nil, false},
		{"with an anchor in reach", end.Add(time.Hour), end.Add(time.Hour + time.Second), false, identity.ErrExpired, false},
		{"the anchors went away before it ended", end.Add(-time.Hour), end.Add(day), false, nil, false},
		{"nobody ever saw an anchor", time.Time{}, end.Add(day), false, nil, false},
		{"an anchor was seen after it had ended, and went away", end.Add(time.Hour), end.Add(day), false, identity.ErrExpired, false},
		{"the last day of grace", end.Add(-time.Hour), end.Add(identity.OfflineGrace - time.Hour), false, nil, false},
		{"after the grace", end.Add(-time.Hour), end.Add(identity.OfflineGrace + time.Hour), false, identity.ErrExpired, false},
		{"at an anchor, to renew it", end.Add(day), end.Add(day), true, nil, true},
		{"at an anchor, after the grace", end.Add(20 * day), end.Add(20 * day), true, identity.ErrExpired, false},
	} {
		a := b.admission(c.anchor)
		a.now = func() time.Time { return clock }
		if !c.seen.IsZero() {
			a.sawAnchorAt(c.seen)
		}
		a.revoked.learn([]api.Revocation{{ID: string(revoked)}})
		clock = c.at
		m, err := a.Verify(id, cert)
		if !errors.Is(err, c.want) || m.Lapsed != c.lapsed {
			t.Errorf("%s: %v, lapsed %v; want %v, %v", c.name, err, m.Lapsed, c.want, c.lapsed)
		}
		if _, err := a.Verify(revoked, dead); api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: a revoked one is let in: %v", c.name, err)
		}
		if _, err := a.Verify(operator, operators); c.anchor && err == nil {
			t.Errorf("%s: a person whose certificate has ended is let in", c.name)
		}
	}
}

func TestWhenAnAnchorWasSeenOutlivesADaemon(t *testing.T) {
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	seen := time.Now().Add(-time.Hour).Round(0)
	before, after := newBureau(t).admission(false), newBureau(t).admission(false)
	d := &daemon{dir: dir, admission: before, log: zap.NewNop()}
	ctx, cancel := context.WithCancel(t.Context())
	saved := make(chan error, 1)
	go func() { saved <- d.rememberAnchors(ctx) }()
	before.sawAnchorAt(seen)
	cancel()
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	d = &daemon{dir: dir, admission: after, log: zap.NewNop()}
	d.recallAnchors()
	if got := after.lastAnchor(); !got.Equal(seen) {
		t.Errorf("remembered %v, it was %v", got, seen)
	}
}
