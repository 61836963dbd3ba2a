package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container/fake"
)

func stopsOffline(id string) api.Replica {
	return replica(id, func(s *api.WorkloadSpec) {
		s.OnDisconnect = api.OnDisconnect{Mode: api.DisconnectStop, After: api.Duration(30 * time.Second)}
	})
}

func TestOfflineHouseStopsWhatMustNotRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		single := stopsOffline("db.0.1")
		b.agent.Assign([]api.Replica{single, replica("web.0.1")})
		for range 10 { // an anchor speaks
			b.confirmed.Store(time.Now().UnixNano())
			time.Sleep(5 * time.Second)
		}
		b.want("db.0.1", api.ReplicaReady, 0)
		time.Sleep(24 * time.Second)
		b.want("db.0.1", api.ReplicaReady, 0)
		time.Sleep(2 * time.Second)
		b.want("db.0.1", api.ReplicaLost, 0)
		b.want("web.0.1", api.ReplicaReady, 0)
		if list, _ := b.runtime.List(t.Context()); len(list) != 1 {
			t.Errorf("left %v", list)
		}
		b.confirmed.Store(time.Now().UnixNano())
		b.agent.Assign([]api.Replica{single, replica("web.0.1")}) // the anchor does not know yet
		time.Sleep(time.Minute)
		b.want("db.0.1", api.ReplicaLost, 0)
		b.agent.Assign([]api.Replica{replica("web.0.1")})
		if r := b.report("db.0.1"); r.ID != "" {
			t.Errorf("still reported: %+v", r)
		}
	})
}

func TestRebootedHouseWaitsWithWhatMustNotRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.confirmed.Store(0)
		b.agent.Assign([]api.Replica{stopsOffline("db.0.1"), replica("web.0.1")})
		time.Sleep(10 * time.Second)
		b.want("web.0.1", api.ReplicaReady, 0)
		b.want("db.0.1", api.ReplicaPreparing, 0)
		b.confirmed.Store(time.Now().UnixNano())
		time.Sleep(time.Second)
		b.want("db.0.1", api.ReplicaReady, 0)
	})
}

// A confirmation is worth something for as long as the replica may run without
// another one, and not longer.
func TestOldConfirmationsStartNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.confirmed.Store(time.Now().Add(-30 * time.Second).UnixNano())
		b.agent.Assign([]api.Replica{stopsOffline("db.0.1")})
		time.Sleep(20 * time.Second)
		b.want("db.0.1", api.ReplicaPreparing, 0)
		b.confirmed.Store(time.Now().Add(-29 * time.Second).UnixNano())
		time.Sleep(time.Second)
		b.want("db.0.1", api.ReplicaReady, 0)
	})
}

func TestRestartedDaemonKeepsWhatItAdoptsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		b.agent.Assign([]api.Replica{stopsOffline("db.0.1")})
		b.want("db.0.1", api.ReplicaReady, 0)
		b.shutdown()
		b.confirmed.Store(0)
		b.start()
		defer b.shutdown()
		b.agent.Assign([]api.Replica{stopsOffline("db.0.1")})
		time.Sleep(29 * time.Second)
		b.want("db.0.1", api.ReplicaReady, 0)
		time.Sleep(2 * time.Second)
		b.want("db.0.1", api.ReplicaLost, 0)
	})
}
