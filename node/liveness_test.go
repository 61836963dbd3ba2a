package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// beats lets a node be heard for a while.
func beats(w *watcher, incarnation uint64, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		w.beat("pi", heartbeat{incarnation})
	}
}

// A node that reports after a silence waits, unless it has restarted: the report
// may be the first word of the new daemon.
func TestReportAfterASilence(t *testing.T) {
	for name, c := range map[string]struct {
		incarnation uint64
		waits       bool
	}{"the same daemon": {1, true}, "another daemon": {2, false}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatcher(liveness.Config{})
			beats(w, 1, 10*time.Second)
			time.Sleep(20 * time.Second)
			if why := w.reported("pi", c.incarnation); (why != "") != c.waits {
				t.Errorf("%s: it has to wait because %q, want a reason: %v", name, why, c.waits)
			}
			beats(w, c.incarnation, time.Minute)
			if why := w.reported("pi", c.incarnation); why != "" {
				t.Errorf("%s: heard for a minute, and yet it has to wait: %s", name, why)
			}
		})
	}
}
