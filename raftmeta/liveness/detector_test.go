package liveness_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world runs a detector over a cluster in virtual time, 100 ms a step, and
// records verdicts as an anchor does.
type world struct {
	t        testing.TB
	detector *liveness.Detector
	now      time.Time
	nodes    []api.Node
	dark     map[api.NodeID]bool // sends no heartbeats
	next     map[api.NodeID]time.Time
	log      []string
}

func newWorld(t testing.TB, zones map[string][]string) *world {
	w := &world{t: t, detector: liveness.New(liveness.Config{}), now: start, dark: map[api.NodeID]bool{}, next: map[api.NodeID]time.Time{}}
	for _, zone := range []string{"cloud", "home-a", "home-b", ""} {
		for _, name := range zones[zone] {
			w.nodes = append(w.nodes, api.Node{ID: api.NodeID(name), State: api.NodeReady, Inventory: api.Inventory{Name: name, Zone: zone}})
		}
	}
	w.run(5 * time.Second)
	return w
}

func homes(t testing.TB) *world {
	return newWorld(t, map[string][]string{"cloud": {"vps"}, "home-a": {"pi", "nas"}, "home-b": {"desk"}, "": {"box"}})
}

func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(100 * time.Millisecond) {
		for _, n := range w.nodes {
			if !w.dark[n.ID] && !w.now.Before(w.next[n.ID]) {
				w.detector.Heard(n.ID, true, w.now)
				w.next[n.ID] = w.now.Add(500 * time.Millisecond)
			}
		}
		verdicts, asks := w.detector.Step(w.nodes, "vps", w.now)
		for _, a := range asks { // who is dark is reached by nobody
			for _, witness := range a.Witnesses {
				if !w.dark[witness] {
					w.detector.Witness(liveness.WitnessReport{Witness: witness, Node: a.Node, Reached: !w.dark[a.Node]}, w.now)
				}
			}
		}
		for _, tr := range verdicts {
			w.log = append(w.log, fmt.Sprintf("%s %s→%s", tr.Node, tr.From, tr.To))
			for i := range w.nodes {
				if w.nodes[i].ID == tr.Node {
					w.nodes[i].State, w.nodes[i].StateSince = tr.To, w.now
				}
			}
		}
	}
}

func (w *world) state(id api.NodeID) api.NodeState {
	for _, n := range w.nodes {
		if n.ID == id {
			return n.State
		}
	}
	return ""
}

func (w *world) want(states map[api.NodeID]api.NodeState) {
	w.t.Helper()
	for id, want := range states {
		if got := w.state(id); got != want {
			w.t.Errorf("%s is %s, want %s (%v)", id, got, want, w.log)
		}
	}
}

func TestSilentNodeIsSuspectThenDown(t *testing.T) {
	w := homes(t)
	w.dark["desk"] = true
	w.run(400 * time.Millisecond)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeSuspect, "pi": api.NodeReady})
	w.run(1500 * time.Millisecond)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeDown, "pi": api.NodeReady, "nas": api.NodeReady})
	w.dark["desk"] = false
	w.run(5 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeDown}) // until it reports
}

func TestBrokenConnectionSpeedsUpAndDecidesNothingAlone(t *testing.T) {
	w := homes(t)
	w.detector.Broken("pi", w.now)
	w.run(5 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeReady})
	w.dark["desk"] = true
	w.detector.Broken("desk", w.now)
	w.run(1900 * time.Millisecond)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeDown})
}

func TestShortSilenceMovesNothing(t *testing.T) {
	w := homes(t)
	w.dark["desk"] = true
	w.run(400 * time.Millisecond)
	w.dark["desk"] = false
	w.run(time.Second)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeReady})
	for _, l := range w.log {
		if l == "desk suspect→down" {
			t.Errorf("declared down: %v", w.log)
		}
	}
}

func TestDarkHouseIsCutOffBeforeItIsDown(t *testing.T) {
	w := homes(t)
	w.dark["pi"], w.dark["nas"] = true, true
	w.run(20 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeCutOff, "nas": api.NodeCutOff, "desk": api.NodeReady})
	w.dark["pi"], w.dark["nas"] = false, false
	w.run(time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeReady, "nas": api.NodeReady})
	w.dark["pi"], w.dark["nas"] = true, true
	w.run(time.Hour)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeCutOff, "nas": api.NodeCutOff}) // for as long as it lasts
}

func TestOneDeviceOfAHouseDiesAlone(t *testing.T) {
	w := homes(t)
	w.dark["pi"] = true
	w.run(3 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeDown, "nas": api.NodeReady})
	w.run(time.Minute)
	w.dark["nas"] = true // later, so its silence is its own
	w.run(3 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"nas": api.NodeDown})
}

func TestIsolatedJudgeDeclaresNobodyDead(t *testing.T) {
	w := homes(t)
	for _, n := range w.nodes {
		w.dark[n.ID] = true
	}
	w.run(10 * time.Minute)
	for _, id := range []api.NodeID{"pi", "nas", "desk", "box"} {
		w.want(map[api.NodeID]api.NodeState{id: api.NodeCutOff})
	}
	clear(w.dark)
	w.run(time.Second)
	for _, id := range []api.NodeID{"pi", "nas", "desk", "box"} {
		w.want(map[api.NodeID]api.NodeState{id: api.NodeReady})
	}
}

func TestRebootTeachesNoPatience(t *testing.T) {
	w := homes(t)
	for range 3 {
		w.dark["desk"] = true
		w.run(7 * time.Second)
		w.want(map[api.NodeID]api.NodeState{"desk": api.NodeDown})
		w.dark["desk"] = false
		for i := range w.nodes {
			if w.nodes[i].ID == "desk" {
				w.nodes[i].State = api.NodeReady // it reported
			}
		}
		w.detector.Restarted("desk", w.now)
		w.run(2 * time.Second)
	}
	w.dark["desk"] = true
	w.run(3 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeDown})
}

func TestGoodbyeIsAPause(t *testing.T) {
	w := homes(t)
	w.dark["pi"] = true
	w.detector.Goodbye("pi", w.now)
	w.run(20 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeSuspect})
	w.dark["pi"] = false
	w.run(time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeReady})
	w.dark["pi"] = true
	w.detector.Goodbye("pi", w.now)
	w.run(31 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeDown})
}

func TestPausedJudgeBlamesNobody(t *testing.T) {
	w := newWorld(t, map[string][]string{"cloud": {"vps"}, "home-b": {"desk"}})
	w.now = w.now.Add(time.Minute)
	w.detector.Slept(time.Minute)
	w.dark["desk"] = true // what it sent meanwhile has not been read yet
	w.run(300 * time.Millisecond)
	if got := w.state("desk"); got == api.NodeDown {
		t.Errorf("blamed for the judge's own pause: %v", w.log)
	}
	w.run(5 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"desk": api.NodeDown})
}

func TestNewJudgeGivesEverybodyTime(t *testing.T) {
	w := homes(t)
	w.detector = liveness.New(liveness.Config{}) // a restarted anchor has heard of nobody
	w.dark["pi"], w.dark["desk"] = true, true
	w.run(4 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeReady, "desk": api.NodeReady})
	w.dark["pi"] = false
	w.run(8 * time.Second)
	w.want(map[api.NodeID]api.NodeState{"pi": api.NodeReady, "desk": api.NodeDown})
}

// A node whose heartbeats are late by no more than their own spread is never
// declared down, whatever the spread.
func TestJitterEarnsPatience(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := liveness.New(liveness.Config{})
		nodes := []api.Node{{ID: "vps", State: api.NodeReady}, {ID: "n", State: api.NodeReady}, {ID: "m", State: api.NodeReady}}
		spread := rapid.IntRange(0, 1500).Draw(t, "spread_ms")
		now := start
		for i := range 200 {
			gap := time.Duration(500+rapid.IntRange(0, spread).Draw(t, "late_ms")) * time.Millisecond
			now = now.Add(gap)
			verdicts, _ := d.Step(nodes, "vps", now)
			for _, tr := range verdicts {
				if tr.To == api.NodeDown && tr.Node == "n" {
					t.Fatalf("beat %d, %s after the one before: %s (%s)", i, gap, tr.To, tr.Reason)
				}
			}
			d.Heard("n", true, now)
			d.Heard("m", true, now)
		}
	})
}

// A probe that is answered before a late heartbeat arrives does not hide that it
// was late: a path that loses packets again and again is given more time.
func TestAnsweredProbesDoNotHideLateHeartbeats(t *testing.T) {
	d := liveness.New(liveness.Config{})
	nodes := []api.Node{{ID: "vps", State: api.NodeReady}, {ID: "n", State: api.NodeReady}, {ID: "m", State: api.NodeReady}}
	now := start
	step := func(quiet time.Duration, probed bool) (down bool) {
		for end := now.Add(quiet); now.Before(end); now = now.Add(20 * time.Millisecond) {
			d.Heard("m", false, now)
			verdicts, asks := d.Step(nodes, "vps", now)
			for _, a := range asks {
				d.Witness(liveness.WitnessReport{Witness: "m", Node: a.Node}, now)
				if probed {
					d.Heard("n", false, now)
				}
			}
			for _, v := range verdicts {
				down = down || v.Node == "n" && v.To == api.NodeDown
			}
		}
		return down
	}
	for range 20 {
		d.Heard("n", true, now)
		if step(500*time.Millisecond, true) {
			t.Fatal("declared down without a silence")
		}
	}
	for range 5 {
		d.Heard("n", true, now)
		step(700*time.Millisecond, true) // lost, and sent again
		d.Heard("n", true, now)
		step(300*time.Millisecond, true)
	}
	d.Heard("n", true, now)
	if step(2500*time.Millisecond, false) {
		t.Error("declared down for a pause, though its path loses heartbeats")
	}
	if !step(3*time.Second, false) {
		t.Error("not declared down at all")
	}
}

func TestHeartbeatsKeepTheirPace(t *testing.T) {
	for _, n := range []int{3, 1000, 5000} {
		every := liveness.HeartbeatInterval(n)
		for _, draw := range []float64{0, 0.5, 0.999} {
			if next := liveness.NextHeartbeat(n, draw); (next-every).Abs() > every/50 || draw == 0 && next >= every {
				t.Errorf("%d nodes, draw %.3f: the next heartbeat after %s, of %s", n, draw, next, every)
			}
		}
	}
}

// In doubt the judge looks more often.
func TestPaceFollowsDoubt(t *testing.T) {
	w := homes(t)
	calm := w.detector.Pace()
	w.dark["desk"] = true
	w.run(400 * time.Millisecond)
	if doubt := w.detector.Pace(); doubt >= calm {
		t.Errorf("the next step after %s in doubt, after %s without", doubt, calm)
	}
}

func BenchmarkStep1000(b *testing.B) {
	d := liveness.New(liveness.Config{})
	nodes := make([]api.Node, 1000)
	for i := range nodes {
		nodes[i] = api.Node{ID: api.NodeID(fmt.Sprint(i)), State: api.NodeReady, Inventory: api.Inventory{Zone: fmt.Sprint(i / 3)}}
		d.Heard(nodes[i].ID, true, start)
	}
	for b.Loop() {
		d.Step(nodes, "0", start.Add(time.Second))
	}
}
