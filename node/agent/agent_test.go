package agent_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/fake"
	"github.com/cloudless-project/cloudless/node/agent"
)

const imageRef = "docker.io/library/web:1"

// images has every image, once the runtime has it; it can be told to fail.
type images struct {
	mu  sync.Mutex
	err error
}

func (i *images) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func (i *images) Ensure(context.Context, string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// network hands out addresses and remembers which are in use.
type network struct {
	mu       sync.Mutex
	attached map[string]bool
}

func (n *network) Attach(_ context.Context, id string) (agent.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attached[id] = true
	return agent.Attachment{IP: "10.214.0.9"}, nil
}

func (n *network) Detach(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.attached, id)
	return nil
}

func (n *network) Sweep(_ context.Context, keep []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.attached {
		if !slices.Contains(keep, id) {
			delete(n.attached, id)
		}
	}
	return nil
}

func (n *network) has(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.attached[id]
}

// bench is an agent on a fake runtime, in virtual time.
type bench struct {
	t       *testing.T
	runtime *fake.Runtime
	images  *images
	network *network
	agent   *agent.Agent
	stop    context.CancelFunc
	done    chan struct{}

	confirmed atomic.Int64 // by an anchor, last; 0 for never
}

func newBench(t *testing.T, cfg fake.Config) *bench {
	b := &bench{t: t, runtime: fake.New(cfg), images: &images{}, network: &network{attached: map[string]bool{}}}
	b.runtime.AddImage(imageRef)
	b.confirmed.Store(time.Now().UnixNano())
	b.start()
	return b
}

// start runs a new agent on the same runtime, as a new daemon would.
func (b *bench) start() {
	b.agent = agent.New(agent.Config{
		Node: "n1", Runtime: b.runtime, Images: b.images, Network: b.network, Confirmed: b.lastConfirmed, Log: zaptest.NewLogger(b.t),
	})
	ctx, cancel := context.WithCancel(b.t.Context())
	b.stop, b.done = cancel, make(chan struct{})
	go func() {
		defer close(b.done)
		if err := b.agent.Run(ctx); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	}()
}

func (b *bench) lastConfirmed(api.ReplicaID) time.Time {
	if at := b.confirmed.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

func (b *bench) shutdown() {
	b.stop()
	<-b.done
}

// report waits until nothing moves and returns what is said of a replica.
func (b *bench) report(id api.ReplicaID) api.ReplicaReport {
	synctest.Wait()
	all, _ := b.agent.Reports()
	for _, r := range all {
		if r.ID == id {
			return r
		}
	}
	return api.ReplicaReport{}
}

func (b *bench) want(id api.ReplicaID, state api.ReplicaState, restarts int) {
	b.t.Helper()
	if r := b.report(id); r.State != state || r.Restarts != restarts {
		b.t.Fatalf("%s is %s after %d restarts (%s), want %s after %d", id, r.State, r.Restarts, r.Reason, state, restarts)
	}
}

func replica(id string, change ...func(*api.WorkloadSpec)) api.Replica {
	spec := api.WorkloadSpec{Image: imageRef, Replicas: 1}
	spec.SetDefaults()
	for _, c := range change {
		c(&spec)
	}
	workload, _, _ := strings.Cut(id, ".")
	return api.Replica{ID: api.ReplicaID(id), Workload: workload, Revision: 1, Spec: spec, Node: "n1", Desired: api.DesiredRun, State: api.ReplicaAssigned}
}

func TestReplicaRunsAndIsRemovedWhenItIsNotAssigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.agent.Assign([]api.Replica{replica("web.0.1")})
		b.want("web.0.1", api.ReplicaReady, 0)
		if r := b.report("web.0.1"); r.Address != "10.214.0.9" || r.StartedAt.IsZero() {
			t.Errorf("the report lacks address or start: %+v", r)
		}
		b.agent.Assign(nil)
		time.Sleep(20 * time.Second)
		if r := b.report("web.0.1"); r.ID != "" {
			t.Errorf("still reported: %+v", r)
		}
		if list, _ := b.runtime.List(t.Context()); len(list) != 0 || b.network.has("web.0.1") {
			t.Errorf("left containers %v, network %v", list, b.network.has("web.0.1"))
		}
	})
}

func TestDesiredStopEndsInStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		r := replica("web.0.1")
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.1", api.ReplicaReady, 0)
		r.Desired = api.DesiredStop
		b.agent.Assign([]api.Replica{r})
		time.Sleep(20 * time.Second)
		b.want("web.0.1", api.ReplicaStopped, 0)
		b.agent.Assign([]api.Replica{r}) // again, before the anchor has taken the report
		b.want("web.0.1", api.ReplicaStopped, 0)
	})
}

func TestCrashIsRestartedWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.agent.Assign([]api.Replica{replica("web.0.1")})
		b.want("web.0.1", api.ReplicaReady, 0)
		b.runtime.Kill("web.0.1", 1, container.ReasonError)
		if r := b.report("web.0.1"); r.State != api.ReplicaNotReady || !strings.Contains(r.Reason, "code 1") {
			t.Fatalf("after the crash: %+v", r)
		}
		time.Sleep(600 * time.Millisecond) // the first pause is half a second
		b.want("web.0.1", api.ReplicaReady, 1)
		b.runtime.Kill("web.0.1", 137, container.ReasonOOM)
		time.Sleep(600 * time.Millisecond) // the second one is twice as long
		if r := b.report("web.0.1"); r.State != api.ReplicaNotReady || !strings.Contains(r.Reason, "memory limit") {
			t.Fatalf("after the second crash: %+v", r)
		}
		time.Sleep(600 * time.Millisecond)
		b.want("web.0.1", api.ReplicaReady, 2)
	})
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy string
		code   int
		want   api.ReplicaState
	}{
		{api.RestartNever, 0, api.ReplicaStopped},
		{api.RestartNever, 3, api.ReplicaFailed},
		{api.RestartOnFailure, 0, api.ReplicaStopped},
		{api.RestartOnFailure, 3, api.ReplicaReady},
		{api.RestartAlways, 0, api.ReplicaReady},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, fake.Config{})
			defer b.shutdown()
			b.agent.Assign([]api.Replica{replica("job.0.1", func(s *api.WorkloadSpec) { s.Restart.Policy = c.policy })})
			b.want("job.0.1", api.ReplicaReady, 0)
			reason := container.ReasonError
			if c.code == 0 {
				reason = container.ReasonCompleted
			}
			b.runtime.Kill("job.0.1", c.code, reason)
			time.Sleep(time.Second)
			if r := b.report("job.0.1"); r.State != c.want {
				t.Errorf("policy %s, exit code %d: %s (%s), want %s", c.policy, c.code, r.State, r.Reason, c.want)
			}
		})
	}
}

func TestRestartedDaemonAdoptsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		r := replica("web.0.1")
		b.agent.Assign([]api.Replica{r, replica("old.0.1")})
		b.want("web.0.1", api.ReplicaReady, 0)
		started := b.report("web.0.1").StartedAt
		b.shutdown()
		time.Sleep(time.Minute)

		b.start()
		defer b.shutdown()
		b.agent.Assign([]api.Replica{r}) // old.0.1 moved away meanwhile
		b.want("web.0.1", api.ReplicaReady, 0)
		if got := b.report("web.0.1").StartedAt; !got.Equal(started) {
			t.Errorf("started again at %v, want the one from %v adopted", got, started)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if list, _ := b.runtime.List(t.Context()); len(list) != 1 {
			t.Errorf("left %v, want web.0.1 alone", list)
		}
	})
}

func TestRunThatEndedUnseenCountsAsARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		r := replica("web.0.1")
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.1", api.ReplicaReady, 0)
		b.shutdown()
		b.runtime.Reboot()
		b.start()
		defer b.shutdown()
		b.agent.Assign([]api.Replica{r})
		time.Sleep(time.Second)
		b.want("web.0.1", api.ReplicaReady, 1)
	})
}

func TestMissingImageIsRetriedAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.images.fail(errors.New("no holder answers"))
		b.agent.Assign([]api.Replica{replica("web.0.1")})
		if r := b.report("web.0.1"); r.State != api.ReplicaPreparing || !strings.Contains(r.Reason, "no holder answers") {
			t.Fatalf("got %+v", r)
		}
		b.images.fail(nil)
		time.Sleep(2 * time.Second)
		b.want("web.0.1", api.ReplicaReady, 0)
	})
}

func TestContainerGetsNoMoreThanItsSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		b.agent.Assign([]api.Replica{replica("web.0.1", func(s *api.WorkloadSpec) {
			s.Resources.CPU, s.Resources.Memory = 250, 128<<20
			s.Resources.Limits = &api.LimitSpec{Memory: 256 << 20}
			s.Env = map[string]string{"MODE": "x"}
		})})
		b.want("web.0.1", api.ReplicaReady, 0)
		spec, ok := b.runtime.Spec("web.0.1")
		if !ok {
			t.Fatal("no container")
		}
		if spec.CPULimit != 250 || spec.MemoryLimit != 256<<20 || spec.PIDLimit != api.DefaultPIDs ||
			spec.WritableRootfs || len(spec.Capabilities) != 0 || spec.Env["MODE"] != "x" || spec.Env["CLOUDLESS_REPLICA"] != "web.0.1" {
			t.Errorf("got %+v", spec)
		}
	})
}

func TestAgentSettlesWhenItKnowsWhatAnEarlierOneLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		b.agent.Assign([]api.Replica{replica("web.0.1")})
		b.want("web.0.1", api.ReplicaReady, 0)
		b.shutdown()

		b.start()
		defer b.shutdown()
		synctest.Wait()
		if b.agent.Settled() {
			t.Error("settled without having heard of any assignment")
		}
		_, changed := b.agent.Reports()
		b.agent.Assign([]api.Replica{replica("web.0.1")})
		b.want("web.0.1", api.ReplicaReady, 0)
		if !b.agent.Settled() {
			t.Error("not settled although every replica is reported")
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
	})
}

func TestReplicaThatIsToStopIsNotStartedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		defer b.shutdown()
		r := replica("web.0.1")
		r.Desired = api.DesiredStop
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.1", api.ReplicaStopped, 0)
		if calls := b.runtime.Calls(); slices.ContainsFunc(calls, func(c string) bool { return strings.Contains(c, "create") || strings.Contains(c, "start") }) {
			t.Errorf("the runtime was asked for %v", calls)
		}
	})
}

func TestCrashLoopKeepsItsPauseOverARestartOfTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, fake.Config{})
		r := replica("web.0.1")
		r.Restarts = 50 // as the anchors know
		b.agent.Assign([]api.Replica{r})
		b.want("web.0.1", api.ReplicaReady, 50)
		b.shutdown()
		b.runtime.Kill("web.0.1", 1, container.ReasonError)
		b.start()
		defer b.shutdown()
		b.agent.Assign([]api.Replica{r})
		time.Sleep(5 * time.Second)
		if r := b.report("web.0.1"); r.State == api.ReplicaReady || r.Restarts != 51 {
			t.Errorf("started again at once: %+v", r)
		}
		time.Sleep(5 * time.Minute)
		b.want("web.0.1", api.ReplicaReady, 51)
	})
}
