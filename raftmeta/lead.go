package raftmeta

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// reign is one period in which this node leads.
type reign struct {
	ctx   context.Context
	end   context.CancelFunc
	ready chan struct{} // closed when the state has caught up with earlier leaders
	term  uint64        // Raft's; valid once ready is closed
}

// leadership is the current reign, nil while this node does not lead, and a
// channel that is closed when that changes.
type leadership struct {
	mu      sync.Mutex
	reign   *reign
	changed chan struct{}
}

func (l *leadership) current() (*reign, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.reign, l.changed
}

func (l *leadership) set(r *reign) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reign != nil {
		l.reign.end()
	}
	l.reign = r
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Lead runs f whenever this node leads, until ctx ends; then it returns nil.
// The context that f gets ends with the leadership, and the state that f finds
// includes everything that earlier leaders acknowledged. When f returns nil it
// is not run again before the next election; when it fails while its context
// is alive, Lead returns that error.
func (a *Anchor) Lead(ctx context.Context, f func(ctx context.Context) error) error {
	for {
		r, changed := a.leadership.current()
		if r == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			case <-a.closing.Done():
				return nil
			}
		}
		if err := leadOnce(ctx, r, f); err != nil {
			return err
		}
		select {
		case <-r.ctx.Done():
		case <-ctx.Done():
			return nil
		}
		// The reign is over; wait until leadership says so too.
		if now, changed := a.leadership.current(); now == r {
			<-changed
		}
	}
}

func leadOnce(ctx context.Context, r *reign, f func(context.Context) error) error {
	select {
	case <-r.ready:
	case <-r.ctx.Done():
		return nil
	case <-ctx.Done():
		return nil
	}
	leading, stop := context.WithCancel(r.ctx)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	if err := f(leading); err != nil && leading.Err() == nil {
		return fmt.Errorf("lead: %w", err)
	}
	return nil
}

// watchLeadership follows raft's elections until the anchor closes.
func (a *Anchor) watchLeadership() {
	defer a.leadership.set(nil)
	for {
		select {
		case leads := <-a.notify:
			if !leads {
				a.leadership.set(nil)
				continue
			}
			r := &reign{ready: make(chan struct{})}
			r.ctx, r.end = context.WithCancel(a.closing)
			a.leadership.set(r)
			a.watching.Go(func() { a.catchUp(r) })
		case <-a.closing.Done():
			return
		}
	}
}

// catchUpPause is between two barriers, when one failed although this node
// still leads.
const catchUpPause = 100 * time.Millisecond

// catchUp waits until everything before the reign has been applied here.
func (a *Anchor) catchUp(r *reign) {
	for r.ctx.Err() == nil {
		term := a.raft.CurrentTerm()
		// Not longer than the reign: raft forgets a barrier that waits for the state
		// machine when it shuts down, and Close waits for this.
		err := a.await(r.ctx, a.raft.Barrier(0))
		if err == nil && a.raft.CurrentTerm() == term {
			a.cfg.Log.Info("this anchor leads", zap.Uint64("term", term))
			r.term = term
			close(r.ready)
			return
		}
		if r.ctx.Err() != nil || a.raft.State() != raft.Leader {
			return // watchLeadership hears of it too
		}
		a.cfg.Log.Warn("catching up with earlier leaders failed", zap.Error(err))
		select {
		case <-time.After(catchUpPause):
		case <-r.ctx.Done():
		}
	}
}
