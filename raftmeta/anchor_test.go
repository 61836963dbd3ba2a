package raftmeta

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	goleak.VerifyTestMain(m)
}

// hub connects anchors of one process with pipes, as the mesh would.
type hub struct {
	mu  sync.Mutex
	all map[api.NodeID]*port
}

// port is one anchor's Streams.
type port struct {
	hub    *hub
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *hub) port(id api.NodeID) *port {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[api.NodeID]*port{}
	}
	p := &port{hub: h, accept: make(chan net.Conn), closed: make(chan struct{})}
	h.all[id] = p
	return p
}

func (p *port) Dial(ctx context.Context, to api.NodeID) (net.Conn, error) {
	p.hub.mu.Lock()
	other := p.hub.all[to]
	p.hub.mu.Unlock()
	if other == nil {
		return nil, fmt.Errorf("%s is nowhere", to)
	}
	here, there := net.Pipe()
	select {
	case other.accept <- there:
		return here, nil
	case <-other.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// quick makes elections in tests take fractions of a second.
var quick = Timing{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, Lease: 100 * time.Millisecond, Commit: 5 * time.Millisecond}

func openOne(t *testing.T, dir string, id api.NodeID) (*Anchor, error) {
	t.Helper()
	return Open(Config{Dir: dir, ID: id, Streams: new(hub).port(id), Bootstrap: true, Timing: quick})
}

func mustOpen(t *testing.T, dir string) *Anchor {
	t.Helper()
	a, err := openOne(t, dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func closeAnchor(t *testing.T, a *Anchor) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// label is a command that can be repeated and leaves a trace.
func label(n int) state.Command {
	return state.RecordEvent{Event: api.Event{
		Code: api.CodeOperatorLogin, Reason: "Test", Time: time.Unix(int64(n), 0).UTC(),
		Object: api.Object{Kind: "test", Name: fmt.Sprint(n)},
	}}
}

func count(v state.View) int { return len(v.EventsAfter(0, state.MaxEvents)) }

func propose(t *testing.T, a *Anchor, n int) state.Result {
	t.Helper()
	res, err := a.Propose(t.Context(), label(n))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestOneAnchorStartsProposesAndResumes(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir)
	eventually(t, "leads", a.IsLeader)
	if err := a.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	res := propose(t, a, 1)
	if len(res.Events) != 1 || a.Store().View().Index() != res.Index {
		t.Errorf("result %+v at view %d", res, a.Store().View().Index())
	}
	_, err := a.Propose(t.Context(), state.RevokeToken{ID: "none"})
	if api.KindOf(err) != api.KindNotFound {
		t.Errorf("want the state's refusal, got %v", err)
	}
	if servers, err := a.Servers(); err != nil || len(servers) != 1 || !servers[0].Voter {
		t.Errorf("servers %v, %v", servers, err)
	}
	closeAnchor(t, a)

	a = mustOpen(t, dir) // Bootstrap is set again and must do nothing
	defer closeAnchor(t, a)
	eventually(t, "leads", a.IsLeader)
	if err := a.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(a.Store().View()); n != 1 {
		t.Errorf("after a restart there are %d events", n)
	}
}

func TestSnapshotThenRestart(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir)
	eventually(t, "leads", a.IsLeader)
	for i := range 20 {
		propose(t, a, i)
	}
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	propose(t, a, 20)
	closeAnchor(t, a)
	a = mustOpen(t, dir)
	defer closeAnchor(t, a)
	eventually(t, "restored", func() bool { return count(a.Store().View()) == 21 })
}

func TestConcurrentProposalsAllLand(t *testing.T) {
	a := mustOpen(t, t.TempDir())
	defer closeAnchor(t, a)
	eventually(t, "leads", a.IsLeader)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if _, err := a.Propose(t.Context(), label(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count(a.Store().View()); n != 100 {
		t.Errorf("%d of 100 landed", n)
	}
}

func TestAnEntryThatCannotBeReadHaltsTheAnchor(t *testing.T) {
	a := mustOpen(t, t.TempDir())
	defer closeAnchor(t, a)
	eventually(t, "leads", a.IsLeader)
	future := a.raft.Apply(frame([]byte(`[{"type":"from.the.future","body":{}}]`)), time.Second)
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	if _, ok := future.Response().(error); !ok {
		t.Errorf("response %v", future.Response())
	}
	if err := a.Run(t.Context()); api.KindOf(err) != api.KindUnsupported {
		t.Errorf("want KindUnsupported from Run, got %v", err)
	}
}

// house is three anchors.
type house struct {
	t       *testing.T
	hub     hub
	anchors map[api.NodeID]*Anchor
}

func newHouse(t *testing.T, ids ...api.NodeID) *house {
	h := &house{t: t, anchors: map[api.NodeID]*Anchor{}}
	for i, id := range ids {
		a, err := Open(Config{Dir: t.TempDir(), ID: id, Streams: h.hub.port(id), Bootstrap: i == 0, Timing: quick})
		if err != nil {
			t.Fatal(err)
		}
		h.anchors[id] = a
		if i == 0 {
			eventually(t, "the first one leads", a.IsLeader)
			continue
		}
		if err := h.anchors[ids[0]].AddVoter(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for id := range h.anchors {
			h.stop(id)
		}
	})
	return h
}

func (h *house) stop(id api.NodeID) {
	a := h.anchors[id]
	delete(h.anchors, id)
	if err := a.Close(); err != nil {
		h.t.Error(err)
	}
}

func (h *house) leader() (leader *Anchor) {
	h.t.Helper()
	eventually(h.t, "a leader that is sure of it", func() bool {
		for _, a := range h.anchors {
			if a.IsLeader() && a.VerifyLeader(h.t.Context()) == nil {
				leader = a
				return true
			}
		}
		return false
	})
	return leader
}

func TestThreeAnchors(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	first := h.leader()
	propose(t, first, 1)
	for _, a := range h.anchors {
		eventually(t, "replicated", func() bool { return count(a.Store().View()) == 1 })
		if a == first {
			continue
		}
		eventually(t, "knows the leader", func() bool { id, ok := a.Leader(); return ok && id == first.cfg.ID })
		_, err := a.Propose(t.Context(), label(2))
		if want := fmt.Sprintf("this anchor does not lead, %s does", first.cfg.ID); api.KindOf(err) != api.KindUnavailable || err.Error() != want {
			t.Errorf("a follower answers %v", err)
		}
		if err := a.VerifyLeader(t.Context()); api.KindOf(err) != api.KindUnavailable {
			t.Errorf("a follower verifies: %v", err)
		}
	}
	h.stop(first.cfg.ID)
	second := h.leader()
	propose(t, second, 2)
	for _, a := range h.anchors {
		eventually(t, "replicated by the second leader", func() bool { return count(a.Store().View()) == 2 })
	}
}

func TestLeadEndsWithLeadership(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	first := h.leader()
	propose(t, first, 1)
	leading := make(chan api.NodeID, 16)
	ended := make(chan api.NodeID, 16)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for id, a := range h.anchors {
		wg.Go(func() {
			err := a.Lead(ctx, func(ctx context.Context) error {
				if count(a.Store().View()) == 0 {
					t.Errorf("%s leads before it has caught up", id)
				}
				leading <- id
				<-ctx.Done()
				ended <- id
				return ctx.Err()
			})
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	if id := <-leading; id != first.cfg.ID {
		t.Fatalf("%s leads, not %s", id, first.cfg.ID)
	}
	heir := api.NodeID("a")
	if first.cfg.ID == heir {
		heir = "b"
	}
	if err := first.Transfer(t.Context(), heir); err != nil {
		t.Fatal(err)
	}
	if id := <-ended; id != first.cfg.ID {
		t.Errorf("%s ended, not %s", id, first.cfg.ID)
	}
	if id := <-leading; id != heir {
		t.Errorf("%s leads, not the heir %s", id, heir)
	}
}

func TestLeadReturnsTheErrorOfItsFunction(t *testing.T) {
	a := mustOpen(t, t.TempDir())
	defer closeAnchor(t, a)
	err := a.Lead(t.Context(), func(context.Context) error { return net.ErrClosed })
	if err == nil {
		t.Error("the error was swallowed")
	}
}
