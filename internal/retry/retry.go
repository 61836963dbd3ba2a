// Package retry spaces attempts out: growing, bounded, jittered waits that end
// with their context.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff yields waits that double from Initial to Max, each with jitter. The
// zero value waits from 100 ms to 30 s. It is not safe for concurrent use.
type Backoff struct {
	Initial time.Duration
	Max     time.Duration
	current time.Duration
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	initial, limit := b.Initial, b.Max
	if initial <= 0 {
		initial = 100 * time.Millisecond
	}
	if limit <= 0 {
		limit = 30 * time.Second
	}
	if b.current == 0 {
		b.current = min(initial, limit)
	} else {
		b.current = min(2*b.current, limit)
	}
	return Jitter(b.current)
}

// Reset makes the next wait the first one again.
func (b *Backoff) Reset() { b.current = 0 }

// Jitter returns d changed by up to a tenth either way, so that many waiters do
// not wake together.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	return d - d/10 + rand.N(d/5+1)
}

// Sleep waits for d, or returns the context's error if that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
