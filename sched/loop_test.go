package sched

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/sched/place"
	"github.com/cloudless-project/cloudless/sched/reconcile"
)

// fakeSource is a state that carries out plans and counts them.
type fakeSource struct {
	mu      sync.Mutex
	in      reconcile.Input
	changed chan struct{}
	fail    []error // of the next commits
	commits []reconcile.Plan
	watches int
}

func newFakeSource() *fakeSource {
	return &fakeSource{changed: make(chan struct{}), in: reconcile.Input{Nodes: []api.Node{{ID: "a", State: api.NodeReady,
		Inventory: api.Inventory{Name: "a", Worker: true, Capacity: api.Resources{CPU: 8000, Memory: 16 << 30}}}}}}
}

func (s *fakeSource) Watch() (reconcile.Input, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches++
	in := s.in
	in.Workloads, in.Replicas = slices.Clone(in.Workloads), slices.Clone(in.Replicas)
	return in, s.changed
}

func (s *fakeSource) Commit(_ context.Context, p reconcile.Plan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fail) > 0 {
		err := s.fail[0]
		s.fail = s.fail[1:]
		return err
	}
	s.commits = append(s.commits, p)
	s.in.Replicas = append(s.in.Replicas, p.Place...)
	s.in.Unplaced = p.Unplaced
	s.notify()
	return nil
}

func (s *fakeSource) committed() []reconcile.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commits)
}

// looked returns how often the loop looked, and what it could not place.
func (s *fakeSource) looked() (int, map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches, s.in.Unplaced
}

func (s *fakeSource) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeSource) change(f func(*reconcile.Input)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.in)
	s.notify()
}

func (s *fakeSource) apply(name string, replicas int) {
	spec := api.WorkloadSpec{Image: "web", Replicas: replicas}
	spec.SetDefaults()
	s.change(func(in *reconcile.Input) {
		in.Workloads = append(in.Workloads, api.Workload{Name: name, Spec: spec, Revision: 1})
	})
}

// run runs a loop over s in a bubble of virtual time while f goes on.
func run(t *testing.T, s *fakeSource, f func(l *Loop)) {
	synctest.Test(t, func(t *testing.T) {
		s.changed = make(chan struct{}) // of this bubble
		l, err := New(Config{Source: s, Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		f(l)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// value adds up the counters of a collector.
func value(t *testing.T, c prometheus.Collector) (sum float64) {
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// settle lets the loop do what it does now, and some milliseconds more.
func settle() {
	time.Sleep(time.Second) // virtual
	synctest.Wait()
}

func TestBurstBecomesOnePlan(t *testing.T) {
	s := newFakeSource()
	run(t, s, func(l *Loop) {
		for _, name := range []string{"a", "b", "c", "d"} {
			s.apply(name, 2)
			time.Sleep(time.Millisecond)
		}
		settle()
		if len(s.committed()) != 1 || len(s.committed()[0].Place) != 8 {
			t.Errorf("got %d commits: %+v", len(s.committed()), s.committed())
		}
		if n := value(t, l.metrics.decisions); n != 8 {
			t.Errorf("the metrics count %v placements", n)
		}
	})
}

func TestConflictIsPlannedAgain(t *testing.T) {
	s := newFakeSource()
	conflict := api.Errorf(api.KindConflict, "node a has changed")
	s.fail = []error{conflict, conflict, conflict}
	run(t, s, func(l *Loop) {
		start := time.Now()
		s.apply("web", 1)
		for {
			synctest.Wait()
			if len(s.committed()) > 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("three conflicts delayed the plan by %v", took)
		}
		if n := value(t, l.metrics.conflicts); n != 3 {
			t.Errorf("the metrics count %v conflicts", n)
		}
	})
}

func TestFailureIsTriedAgain(t *testing.T) {
	s := newFakeSource()
	s.fail = []error{errors.New("no leader")}
	run(t, s, func(*Loop) {
		s.apply("web", 1)
		settle()
		settle()
		if len(s.committed()) != 1 {
			t.Errorf("got %d commits", len(s.committed()))
		}
	})
}

func TestLoopWakesByItself(t *testing.T) {
	s := newFakeSource()
	run(t, s, func(*Loop) {
		s.apply("web", 1)
		settle()
		s.change(func(in *reconcile.Input) {
			in.Replicas[0].State, in.Replicas[0].ChangedAt = api.ReplicaFailed, time.Now()
		})
		time.Sleep(400 * time.Millisecond)
		synctest.Wait()
		if len(s.committed()) != 1 {
			t.Fatalf("got %d commits before the back-off is over", len(s.committed()))
		}
		settle()
		if len(s.committed()) != 2 || s.committed()[1].Place[0].ID != "web.0.2" {
			t.Errorf("got %+v", s.committed())
		}
	})
}

func TestIdleLoopRests(t *testing.T) {
	s := newFakeSource()
	run(t, s, func(*Loop) {
		s.apply("web", 9000) // more than fits
		settle()
		before, _ := s.looked()
		time.Sleep(time.Hour)
		synctest.Wait()
		after, unplaced := s.looked()
		if after != before {
			t.Errorf("the loop made %d plans in an idle hour", after-before)
		}
		if unplaced["web"] == "" {
			t.Error("no reason for what has no room")
		}
	})
}

func TestMetricsSurviveASecondTerm(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 {
		if _, err := New(Config{Source: newFakeSource(), Metrics: reg}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExplain(t *testing.T) {
	s := newFakeSource()
	s.apply("web", 1)
	in, _ := s.Watch()
	in.Now = time.Unix(0, 0)
	plan := reconcile.Make(in)
	in.Replicas = append(in.Replicas, plan.Place...)
	for _, name := range []string{"web", "web.0.1"} {
		e, err := Explain(in, name)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Replicas) != 1 || e.Replicas[0].NodeName != "a" || e.Replicas[0].Decision == "" || len(e.Nodes) != 1 || !e.Nodes[0].Fits {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	if _, err := Explain(in, "db"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("got %v", err)
	}
}

// The verdicts on a placed replica are those that its decision was made by,
// whatever has been placed since.
func TestExplanationAgreesWithTheDecision(t *testing.T) {
	s := newFakeSource()
	s.change(func(in *reconcile.Input) {
		for _, id := range []api.NodeID{"b", "c"} {
			n := in.Nodes[0]
			n.ID, n.Inventory.Name = id, string(id)
			in.Nodes = append(in.Nodes, n)
		}
	})
	in, _ := s.Watch()
	for i, name := range []string{"web", "db", "job"} {
		s.apply(name, 3-i)
		next, _ := s.Watch()
		next.Replicas, next.Now = in.Replicas, time.Unix(int64(i), 0)
		in = next
		in.Replicas = append(in.Replicas, reconcile.Make(in).Place...)
	}
	if len(in.Replicas) != 6 {
		t.Fatalf("%d replicas are placed", len(in.Replicas))
	}
	names := []string{"job"} // of which there is one
	for _, r := range in.Replicas {
		names = append(names, string(r.ID))
	}
	for _, name := range names {
		e, err := Explain(in, name)
		if err != nil {
			t.Fatal(err)
		}
		r := e.Replicas[0]
		at := slices.IndexFunc(e.Nodes, func(v place.Verdict) bool { return v.Node == r.Node })
		if want := fmt.Sprintf("score %.2f (%s)", e.Nodes[at].Score, e.Nodes[at].Terms); !strings.Contains(r.Decision, want) {
			t.Errorf("%s was decided by\n%s\nand is explained by\n%s", name, r.Decision, want)
		}
	}
}
