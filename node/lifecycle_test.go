package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
)

// recorder notes what parts do, in order.
type recorder struct {
	mu    sync.Mutex
	notes []string
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, s)
}

func (r *recorder) part(name string, fail <-chan error) func(context.Context) error {
	return func(ctx context.Context) error {
		defer r.note("end " + name)
		select {
		case err := <-fail:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func TestPartsEndInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		var l lifecycle
		for _, name := range []string{"mesh", "raft", "api"} {
			l.owner(name, r.part(name, nil))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.run(ctx, zap.NewNop(), func() { r.note("stopping") }); err != nil {
			t.Error(err)
		}
		if want := []string{"stopping", "end api", "end raft", "end mesh"}; !slices.Equal(r.notes, want) {
			t.Errorf("got %v, want %v", r.notes, want)
		}
	})
}

func TestFailingPartEndsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		fail := make(chan error, 1)
		var l lifecycle
		l.owner("mesh", r.part("mesh", nil))
		l.loop("sync", r.part("sync", fail))
		l.owner("api", r.part("api", nil))
		broken := errors.New("disk on fire")
		fail <- broken
		err := l.run(t.Context(), zap.NewNop(), func() {})
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "sync: ") {
			t.Errorf("got %v", err)
		}
		if got := r.notes[len(r.notes)-2:]; !slices.Equal(got, []string{"end api", "end mesh"}) {
			t.Errorf("got %v", r.notes)
		}
	})
}

func TestPartThatHangsIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		release := make(chan struct{})
		var l lifecycle
		l.owner("mesh", r.part("mesh", nil))
		l.loop("stuck", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.run(ctx, zap.NewNop(), func() {}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !slices.Equal(r.notes, []string{"end mesh"}) {
			t.Errorf("got %v", r.notes)
		}
		close(release)
	})
}

func TestAbandonedOwnersClose(t *testing.T) {
	r := &recorder{}
	var l lifecycle
	l.owner("mesh", r.part("mesh", nil))
	l.loop("heartbeat", r.part("heartbeat", nil))
	l.owner("api", r.part("api", nil))
	l.abandon(zap.NewNop())
	if want := []string{"end api", "end mesh"}; !slices.Equal(r.notes, want) {
		t.Errorf("got %v, want %v", r.notes, want)
	}
}
