package liveness_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into the transcripts")

// TestTranscripts plays the stories in testdata: commands, and after each the
// lines, marked with ">", of what the detector says. The grammar is in
// testdata/README.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if got == string(want) {
				return
			}
			if *rewrite {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("the story went otherwise (go test -rewrite, then read the difference):\n%s", got)
		})
	}
}

// stage is a cluster in virtual time whose nodes do what a transcript says.
type stage struct {
	t        testing.TB
	detector *liveness.Detector
	now      time.Time
	nodes    []api.Node
	beat     map[api.NodeID]time.Time // next
	mute     map[api.NodeID]bool      // not heard by the judge
	dead     map[api.NodeID]bool      // not heard by anybody, answers nobody
	frozen   map[api.NodeID]bool      // their kernel answers those of their zone, their daemon nobody
	limping  map[api.NodeID]bool      // every other heartbeat of theirs arrives, no probe does
	hidden   map[api.NodeID]bool      // reach only their own zone
	isolated map[string]bool          // zones that reach only themselves
	answers  []answer
	out      strings.Builder
}

type answer struct {
	at     time.Time
	report liveness.WitnessReport
}

func play(t testing.TB, script string) string {
	s := &stage{
		t: t, detector: liveness.New(liveness.Config{}), now: start, beat: map[api.NodeID]time.Time{},
		mute: map[api.NodeID]bool{}, dead: map[api.NodeID]bool{}, isolated: map[string]bool{}, hidden: map[api.NodeID]bool{},
		frozen: map[api.NodeID]bool{}, limping: map[api.NodeID]bool{},
	}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		s.out.WriteString(line)
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			s.do(words[0], words[1:])
		}
	}
	return s.out.String()
}

func (s *stage) do(verb string, args []string) {
	each := func(f func(api.NodeID)) {
		for _, a := range args {
			f(api.NodeID(a))
		}
	}
	switch verb {
	case "cluster":
		s.cluster(args)
	case "run":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.run(d)
	case "mute":
		each(func(id api.NodeID) { s.mute[id] = true })
	case "hide":
		each(func(id api.NodeID) { s.hidden[id] = true })
	case "dies":
		each(func(id api.NodeID) { s.dead[id] = true })
	case "freezes":
		each(func(id api.NodeID) { s.frozen[id] = true })
	case "limps":
		each(func(id api.NodeID) { s.limping[id] = true })
	case "lives":
		each(func(id api.NodeID) {
			delete(s.mute, id)
			delete(s.hidden, id)
			delete(s.dead, id)
			delete(s.frozen, id)
			delete(s.limping, id)
		})
	case "isolate":
		each(func(id api.NodeID) { s.isolated[string(id)] = true })
	case "heal":
		each(func(id api.NodeID) { delete(s.isolated, string(id)) })
	case "goodbye":
		each(func(id api.NodeID) { s.dead[id] = true; s.detector.Goodbye(id, s.now) })
	case "breaks":
		each(func(id api.NodeID) { s.detector.Broken(id, s.now) })
	case "returns":
		each(s.returns)
	case "reports":
		each(func(id api.NodeID) { s.record(id, api.NodeReady); s.detector.Restarted(id, s.now) })
	default:
		s.t.Fatalf("unknown command %s", verb)
	}
}

// returns lets a node be heard that was taken for dead, and report.
func (s *stage) returns(id api.NodeID) {
	s.detector.Heard(id, true, s.now)
	n := &s.nodes[s.index(id)]
	reason := s.detector.Returns(id, s.now)
	if n.State == api.NodeDown && reason != "" {
		s.record(id, api.NodeSuspect)
		n.Unstable = true
		s.say("%s is unstable: %s", id, reason)
		return
	}
	s.record(id, api.NodeReady)
	s.say("%s is ready", id)
}

// cluster makes nodes of "zone:name,name"; the first is the judge.
func (s *stage) cluster(args []string) {
	for _, a := range args {
		zone, names, _ := strings.Cut(a, ":")
		for name := range strings.SplitSeq(names, ",") {
			n := api.Node{ID: api.NodeID(name), State: api.NodeReady, Inventory: api.Inventory{Name: name, Zone: zone}}
			s.nodes = append(s.nodes, n)
			s.beat[n.ID] = s.now.Add(time.Duration(137*len(s.nodes)%500) * time.Millisecond)
		}
	}
}

// run lets time pass, 50 ms a step.
func (s *stage) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(50 * time.Millisecond) {
		for _, n := range s.nodes[1:] {
			for !s.now.Before(s.beat[n.ID]) {
				s.beat[n.ID] = s.beat[n.ID].Add(500 * time.Millisecond)
				lost := s.limping[n.ID] && s.beat[n.ID].Sub(start)/(500*time.Millisecond)%2 == 0
				if !lost && !s.mute[n.ID] && s.connected(s.nodes[0].ID, n.ID) {
					s.detector.Heard(n.ID, true, s.now)
				}
			}
		}
		s.answers = slices.DeleteFunc(s.answers, func(a answer) bool {
			if due := !a.at.After(s.now); !due {
				return false
			}
			s.detector.Witness(a.report, s.now)
			return true
		})
		verdicts, asks := s.detector.Step(s.nodes, s.nodes[0].ID, s.now)
		for _, v := range verdicts {
			s.say("%s is %s: %s", v.Node, v.To, v.Reason)
			s.record(v.Node, v.To)
		}
		for _, a := range asks {
			s.question(a)
		}
	}
}

func (s *stage) question(a liveness.Ask) {
	names := []string{"nobody"}
	if len(a.Witnesses) > 0 {
		names = names[:0]
	}
	slices.Sort(a.Witnesses)
	for _, w := range a.Witnesses {
		names = append(names, string(w))
		if !s.connected(s.nodes[0].ID, w) {
			continue
		}
		reached := s.connected(w, a.Node) && !s.limping[a.Node]
		stands := s.frozen[a.Node] && s.zone(w) == s.zone(a.Node)
		took := 50 * time.Millisecond
		if !reached {
			took += a.Within
		}
		s.answers = append(s.answers, answer{s.now.Add(took), liveness.WitnessReport{Witness: w, Node: a.Node, Reached: reached, Frozen: stands}})
	}
	if s.state(a.Node) != api.NodeSuspect && s.state(a.Node) != api.NodeCutOff { // the first round is enough to read
		s.say("who reaches %s? ask %s", a.Node, strings.Join(names, ", "))
	}
}

func (s *stage) connected(a, b api.NodeID) bool {
	za, zb := s.zone(a), s.zone(b)
	return !s.dead[a] && !s.dead[b] && !s.frozen[a] && !s.frozen[b] && (za == zb || !s.hidden[a] && !s.hidden[b] && !s.isolated[za] && !s.isolated[zb])
}

func (s *stage) zone(id api.NodeID) string {
	return s.nodes[s.index(id)].Inventory.Zone
}

func (s *stage) state(id api.NodeID) api.NodeState { return s.nodes[s.index(id)].State }

func (s *stage) index(id api.NodeID) int {
	i := slices.IndexFunc(s.nodes, func(n api.Node) bool { return n.ID == id })
	if i < 0 {
		s.t.Fatalf("no node %s", id)
	}
	return i
}

func (s *stage) record(id api.NodeID, to api.NodeState) {
	n := &s.nodes[s.index(id)]
	n.State, n.StateSince = to, s.now
	n.Unstable = n.Unstable && to == api.NodeSuspect
}

func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(&s.out, "> %7s  %s\n", fmt.Sprintf("%.2fs", s.now.Sub(start).Seconds()), fmt.Sprintf(format, args...))
}
