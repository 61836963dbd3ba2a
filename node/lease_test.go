package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// anchorOfLease is the leader as a lease sees it.
type anchorOfLease struct {
	mu      sync.Mutex
	wanted  []api.ReplicaID // by the view
	changed chan struct{}
	grants  []api.ReplicaID // nil: no answer comes
	slow    time.Duration   // how long an answer takes
	asked   int
}

func (a *anchorOfLease) view() ([]api.ReplicaID, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wanted, a.changed
}

func (a *anchorOfLease) confirm(context.Context) ([]api.ReplicaID, error) {
	a.mu.Lock()
	a.asked++
	grants, slow := a.grants, a.slow
	a.mu.Unlock()
	time.Sleep(slow)
	if grants == nil {
		return nil, errors.New("no answer")
	}
	return grants, nil
}

func (a *anchorOfLease) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *anchorOfLease) questions() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.asked = 0 }()
	return a.asked
}

// leased runs a lease beside an anchor, in virtual time.
func leased(t *testing.T, f func(*anchorOfLease, *lease)) {
	synctest.Test(t, func(t *testing.T) {
		a, l := &anchorOfLease{changed: make(chan struct{})}, &lease{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.keep(ctx, a.view, a.confirm, zap.NewNop()) }()
		synctest.Wait()
		f(a, l)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLeaseAsksForWhatMustNotRunTwice(t *testing.T) {
	leased(t, func(a *anchorOfLease, l *lease) {
		time.Sleep(time.Minute)
		if n := a.questions(); n != 0 {
			t.Errorf("asked %d times for nothing", n)
		}
		begun := time.Now()
		a.set(func() { a.wanted, a.grants = []api.ReplicaID{"db.0.1"}, []api.ReplicaID{"db.0.1", "web.0.1"} })
		synctest.Wait()
		if at := l.confirmed("db.0.1"); !at.Equal(begun) {
			t.Errorf("confirmed at %s, want at once", at.Sub(begun))
		}
		if at := l.confirmed("web.0.1"); !at.IsZero() {
			t.Error("confirmed what is not to be here")
		}
		for range 50 { // views come many times a second
			time.Sleep(20 * time.Millisecond)
			a.set(func() {})
		}
		time.Sleep(28 * time.Second)
		if n := a.questions(); n != 6 {
			t.Errorf("asked %d times in 29 s, want every 5 s", n)
		}
	})
}

// What was confirmed is as old as the question, and a leader that says no, or
// nothing, renews nothing: whatever else this node hears.
func TestLeaseRunsOutWithoutAnAnswer(t *testing.T) {
	leased(t, func(a *anchorOfLease, l *lease) {
		a.set(func() {
			a.wanted, a.grants, a.slow = []api.ReplicaID{"db.0.1"}, []api.ReplicaID{"db.0.1"}, 2*time.Second
		})
		begun := time.Now()
		time.Sleep(3 * time.Second)
		if at := l.confirmed("db.0.1"); !at.Equal(begun) {
			t.Errorf("confirmed %s after it was asked", at.Sub(begun))
		}
		for _, answer := range [][]api.ReplicaID{nil, {}} {
			a.set(func() { a.grants, a.slow = answer, 0 })
			time.Sleep(time.Minute)
			if at := l.confirmed("db.0.1"); !at.Equal(begun) {
				t.Errorf("renewed without a word of the leader, %s later", at.Sub(begun))
			}
		}
		a.questions()
		time.Sleep(10 * time.Second)
		if n := a.questions(); n < 19 || n > 21 {
			t.Errorf("asked %d times in 10 s while there is no yes", n)
		}
		a.set(func() { a.wanted = nil })
		a.set(func() { a.wanted = []api.ReplicaID{"db.0.2"} })
		time.Sleep(time.Second)
		if at := l.confirmed("db.0.1"); !at.IsZero() {
			t.Error("remembers what is not here any more")
		}
	})
}
