package p2p

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// senders runs circuits of peers that always have something to send, for a
// while of virtual time, and returns how much each peer got through.
func senders(t *testing.T, limit uint64, during time.Duration, circuits map[peer.ID][]int) map[peer.ID]int {
	t.Helper()
	got := make(map[peer.ID]int)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		s := newShares(ctx, limit)
		go s.run(ctx)
		type sent struct {
			from peer.ID
			n    int
		}
		done := make(chan sent)
		count := 0
		for from, pieces := range circuits {
			for _, size := range pieces {
				count++
				go func() {
					n := 0
					for ctx.Err() == nil {
						s.take(from, size)
						n += size
					}
					done <- sent{from, n - size} // the last one was let go by the end
				}()
			}
		}
		for range count {
			r := <-done
			got[r.from] += r.n
		}
	})
	return got
}

func repeat(n, size int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = size
	}
	return out
}

func TestSharesAreFairPerPeer(t *testing.T) {
	const limit, seconds = 1 << 20, 20
	for name, circuits := range map[string]map[peer.ID][]int{
		"twenty circuits and one":             {"many": repeat(20, relayBuffer), "one": repeat(1, relayBuffer)},
		"twenty with large pieces, one small": {"many": repeat(20, relayBuffer), "one": repeat(1, 4<<10)},
		"three peers":                         {"many": repeat(50, 16<<10), "one": repeat(1, 16<<10), "two": repeat(2, 1<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			got := senders(t, limit, seconds*time.Second, circuits)
			total := 0
			for _, n := range got {
				total += n
			}
			if off := math.Abs(float64(total)/(limit*seconds) - 1); off > 0.1 {
				t.Errorf("%d bytes in %d s, want %d a second", total, seconds, limit)
			}
			even := float64(total) / float64(len(got))
			for p, n := range got {
				if off := math.Abs(float64(n)/even - 1); off > 0.15 {
					t.Errorf("%s got %d of %d bytes, an even share is %.0f", p, n, total, even)
				}
			}
		})
	}
}

func TestSharesLeaveNothingUnused(t *testing.T) {
	const limit, seconds = 1 << 20, 10
	got := senders(t, limit, seconds*time.Second, map[peer.ID][]int{"alone": repeat(1, 16<<10)})
	if off := math.Abs(float64(got["alone"])/(limit*seconds) - 1); off > 0.1 {
		t.Errorf("a peer that is alone got %d bytes in %d s, the limit is %d a second", got["alone"], seconds, limit)
	}
}

// TestSharesForgetThePast: who has been alone for long owes nothing for it.
func TestSharesForgetThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newShares(ctx, 1<<20)
		go s.run(ctx)
		for range 100 {
			s.take("early", relayBuffer)
		}
		begun := time.Now()
		go func() {
			for ctx.Err() == nil {
				s.take("late", relayBuffer)
			}
		}()
		s.take("early", relayBuffer)
		s.take("early", relayBuffer)
		if took := time.Since(begun); took > 500*time.Millisecond {
			t.Errorf("two pieces took %s next to a newcomer, want at most four turns of 1/16 s and one more", took)
		}
		cancel()
		synctest.Wait()
	})
}

func TestNoLimitCostsNothing(t *testing.T) {
	s := newShares(t.Context(), 0)
	if s != nil {
		t.Fatal("shares were made without a limit")
	}
	if n := testing.AllocsPerRun(100, func() { s.take("anybody", relayBuffer) }); n != 0 {
		t.Errorf("%v allocations for a piece without a limit", n)
	}
}
