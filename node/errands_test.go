package node

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestErrandsAreDoneWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newErrands()
		var early, late atomic.Bool
		e.after(time.Minute, func(context.Context) { late.Store(true) })
		e.after(0, func(context.Context) { early.Store(true) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		time.Sleep(30 * time.Second)
		if early.Load() {
			t.Error("done before the daemon runs")
		}
		go func() { defer close(ended); _ = e.run(ctx) }()
		time.Sleep(20 * time.Second)
		if !early.Load() || late.Load() {
			t.Errorf("after 50 s: the errand of 0 s done %v, that of a minute %v", early.Load(), late.Load())
		}
		time.Sleep(20 * time.Second)
		if !late.Load() {
			t.Error("an errand was not done in time")
		}
		cancel()
		<-ended
	})
}

// An errand uses parts that are closed once the daemon has ended: one that is
// under way ends first, and one that is not due is never done.
func TestErrandsEndWithTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newErrands()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = e.run(ctx) }()
		var over, done atomic.Bool
		e.after(0, func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Second)
			over.Store(true)
		})
		e.after(time.Minute, func(context.Context) { done.Store(true) })
		synctest.Wait()
		cancel()
		<-ended
		if !over.Load() {
			t.Error("run has returned before an errand that it had begun")
		}
		e.after(0, func(context.Context) { done.Store(true) })
		time.Sleep(time.Hour)
		if done.Load() {
			t.Error("an errand was done after the daemon had ended")
		}
	})
}

func TestErrandsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newErrands()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = e.run(ctx) }()
		taken := 0
		for e.after(time.Hour, func(context.Context) {}) {
			if taken++; taken > 3*maxErrands {
				t.Fatal("errands are taken without end")
			}
			synctest.Wait()
		}
		if taken < 2*maxErrands {
			t.Errorf("only %d errands were taken", taken)
		}
		cancel()
		<-ended
	})
}
