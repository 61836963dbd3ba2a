package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudless-project/cloudless/internal/retry"
)

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	b := retry.Backoff{Initial: time.Second, Max: 5 * time.Second}
	for i, want := range []time.Duration{1, 2, 4, 5, 5} {
		want *= time.Second
		got := b.Next()
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("wait %d is %v, want %v ± 10 %%", i, got, want)
		}
	}
	b.Reset()
	if got := b.Next(); got > 1100*time.Millisecond {
		t.Errorf("after Reset the wait is %v, want about 1s", got)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := retry.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Sleep returned %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Fatalf("Sleep took %v", took)
		}
		if err := retry.Sleep(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	})
}
