package p2p

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
)

// tries lets a keeper of nothing but a failing task run for a while of virtual
// time, and returns when it tried. wake is called once a second.
func tries(t *testing.T, during time.Duration, wake func(k *keeper, at time.Duration)) []time.Duration {
	t.Helper()
	var at []time.Duration
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := &Mesh{ctx: ctx, log: zap.NewNop()}
		k := newKeeper(m)
		m.keeper = k
		slots := make(chan struct{}, parallelDials)
		begun := time.Now()
		punch := task{k.punches, punchRetryMax, func(_ context.Context, p peer.ID) error {
			at = append(at, time.Since(begun))
			if k.punched(p) >= maxPunches {
				return errPunchRests
			}
			return errors.New("no way through")
		}}
		for time.Since(begun) < during {
			k.start(ctx, slots, "somebody", false, punch)
			synctest.Wait()
			time.Sleep(keepEvery)
			if wake != nil {
				wake(k, time.Since(begun))
			}
		}
		cancel()
		m.wg.Wait()
	})
	return at
}

// TestPunchesRestAndAreTakenUpAgain: a pair that defeats all attempts is tried
// now and then for as long as it is relayed.
func TestPunchesRestAndAreTakenUpAgain(t *testing.T) {
	at := tries(t, time.Hour, nil)
	if len(at) < maxPunches+4 || len(at) > maxPunches+6 {
		t.Fatalf("%d attempts in an hour: %v", len(at), at)
	}
	if last := at[maxPunches-1]; last > 3*time.Minute {
		t.Errorf("the first %d attempts took %s", maxPunches, last)
	}
	for i := maxPunches; i < len(at); i++ {
		if pause := at[i] - at[i-1]; pause < punchRest || pause > punchRest+2*keepEvery {
			t.Errorf("attempt %d came after %s, want a rest of %s", i, pause, punchRest)
		}
	}
}

// TestRestedPunchesWake: another network, or another address of the peer, ends
// the rest at once and starts anew.
func TestRestedPunchesWake(t *testing.T) {
	moved := 5 * time.Minute
	for name, reset := range map[string]func(*keeper){
		"this device has moved": func(k *keeper) { k.reset(nil) },
		"the peer has moved":    func(k *keeper) { k.reset([]peer.ID{"somebody"}) },
	} {
		t.Run(name, func(t *testing.T) {
			at := tries(t, moved+time.Minute, func(k *keeper, now time.Duration) {
				if now == moved {
					reset(k)
				}
			})
			if len(at) < maxPunches+5 || at[maxPunches] < moved || at[maxPunches] > moved+2*keepEvery {
				t.Errorf("attempts at %v, want them again from %s on", at, moved)
			}
		})
	}
}
