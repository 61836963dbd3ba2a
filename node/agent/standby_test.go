package agent_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container/fake"
)

// standby is a replica that is to be made ready and not started.
func standby(id string) api.Replica {
	r := replica(id)
	r.Desired = api.DesiredStandby
	return r
}

func TestStandbyIsStagedAndStartsWhenItIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		r := standby("web.0.2")
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.2", api.ReplicaPreparing, 0)
		calls := b.runtime.Calls()
		if !slices.Contains(calls, "stage web.0.2") || slices.Contains(calls, "start web.0.2") {
			t.Fatalf("the runtime was asked for %v", calls)
		}
		r.Desired = api.DesiredRun
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.2", api.ReplicaReady, 0)
		if calls := b.runtime.Calls(); calls[len(calls)-1] != "start web.0.2" {
			t.Errorf("more was left than the start: %v", calls)
		}
	})
}

func TestStandbyThatIsNotNeededLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.agent.Assign([]api.Replica{standby("web.0.2")})
		b.want("web.0.2", api.ReplicaPreparing, 0)
		b.agent.Assign(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if list, _ := b.runtime.List(t.Context()); len(list) != 0 || b.network.has("web.0.2") {
			t.Errorf("left %v", list)
		}
		if reports, _ := b.agent.Reports(); len(reports) != 0 {
			t.Errorf("still reports %v", reports)
		}
	})
}

func TestStandbyIsMadeAnewAfterARestartOfTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		r := standby("web.0.2")
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.2", api.ReplicaPreparing, 0)
		b.shutdown()
		b.start()
		defer b.shutdown()
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.2", api.ReplicaPreparing, 0)
		r.Desired = api.DesiredRun
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.2", api.ReplicaReady, 0)
	})
}
