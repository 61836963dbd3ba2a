//go:build linux

package containerd

import (
	"context"
	"sync"
)

// locks serialises work on things that have a name. The zero value is ready.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	token chan struct{} // holds one value while unlocked
	users int           // holder and waiters
}

// lock waits for the name and returns the function that releases it.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	k := l.join(name)
	select {
	case <-k.token:
		return func() { l.leave(name, k, true) }, nil
	case <-ctx.Done():
		l.leave(name, k, false)
		return nil, ctx.Err()
	}
}

// try locks the name unless it is locked.
func (l *locks) try(name string) (unlock func(), ok bool) {
	k := l.join(name)
	select {
	case <-k.token:
		return func() { l.leave(name, k, true) }, true
	default:
		l.leave(name, k, false)
		return nil, false
	}
}

func (l *locks) join(name string) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[string]*lock)
	}
	k := l.held[name]
	if k == nil {
		k = &lock{token: make(chan struct{}, 1)}
		k.token <- struct{}{}
		l.held[name] = k
	}
	k.users++
	return k
}

func (l *locks) leave(name string, k *lock, release bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if release {
		k.token <- struct{}{}
	}
	if k.users--; k.users == 0 {
		delete(l.held, name)
	}
}
