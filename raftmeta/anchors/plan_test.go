package anchors

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// world is an input written as one line: a node is "name:words", where the words
// are
//
//	leader voter standby appointed   its place: in the group, or by its record alone
//	public home                      reachable from everywhere, or not
//	always never                     what an operator decided
//	down lost suspect                its state: down for a minute, for an hour, silent
//	young                            ready for a minute only
//	behind, away                     far behind with the log; its part does not answer
//	halted, forgetful                its part has not run for an hour; its log is gone
//	unrecorded                       the record does not have its vote yet
func world(t *testing.T, text string) Input {
	t.Helper()
	in := Input{Now: noon, Progress: map[api.NodeID]Progress{}}
	for _, field := range strings.Fields(text) {
		name, words, _ := strings.Cut(field, ":")
		has := map[string]bool{}
		for _, w := range strings.Split(words, ",") {
			has[w] = true
		}
		n := api.Node{ID: api.NodeID(name), State: api.NodeReady, StateSince: noon.Add(-time.Hour)}
		n.Inventory = api.Inventory{Name: name, Public: has["public"], Anchor: "auto"}
		server := has["leader"] || has["voter"] || has["standby"]
		voter := has["leader"] || has["voter"]
		n.Anchor, n.Voter = server || has["appointed"], voter && !has["unrecorded"]
		switch {
		case has["always"]:
			n.AnchorPolicy = api.AnchorAlways
		case has["never"]:
			n.AnchorPolicy = api.AnchorNever
		}
		switch {
		case has["lost"]:
			n.State = api.NodeDown
		case has["down"]:
			n.State, n.StateSince = api.NodeDown, noon.Add(-time.Minute)
		case has["suspect"]:
			n.State = api.NodeSuspect
		case has["young"]:
			n.StateSince = noon.Add(-time.Minute)
		}
		if has["leader"] {
			in.Self = n.ID
		}
		if server {
			in.Servers = append(in.Servers, Server{n.ID, voter})
		}
		p := Progress{Running: n.Anchor && n.State != api.NodeDown && !has["away"], At: noon}
		switch {
		case has["halted"]:
			p.Running, p.Stopped = false, noon.Add(-time.Hour)
		case has["forgetful"]:
			p.Running, p.Lost, p.Stopped = false, true, noon.Add(-time.Minute)
		}
		if has["behind"] {
			p.Behind = 10000
		}
		in.Progress[n.ID] = p
		in.Nodes = append(in.Nodes, n)
	}
	return in
}

func told(steps []Step) string {
	var out []string
	for _, s := range steps {
		out = append(out, fmt.Sprintf("%s %s", s.Kind, s.Node))
	}
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	for _, c := range []struct{ name, world, want string }{
		{"alone", "a:leader,public b:home c:home", ""},
		{"a second public node becomes a standby", "a:leader,public b:public", "appoint b"},
		{"only once it is steady", "a:leader,public b:public,young", ""},
		{"not one that must not", "a:leader,public b:public,never", ""},
		{"an operator's wish needs neither", "a:leader b:home,young,always", "appoint b"},
		{"it follows when its part runs", "a:leader b:public,appointed", "follow b"},
		{"and not before", "a:leader b:public,appointed,away", ""},
		{"two do not get two votes", "a:leader b:public,standby", ""},
		{"three do, one after the other", "a:leader,public b:public,standby c:public,standby", "vote b"},
		{"the second of them", "a:leader,public b:public,voter c:public,standby", "vote c"},
		{"not with one that lags", "a:leader,public b:public,standby c:public,standby,behind", ""},
		{"a failure between the two is undone", "a:leader,public b:public,voter c:public,standby,down", "demote b"},
		{"at rest", "a:leader,public b:public,voter c:public,voter d:public e:public", ""},
		{"the record follows the group", "a:leader,public b:public,voter,unrecorded c:public,voter", "record b"},
		{"a fourth is a standby", "a:leader,public b:public,voter c:public,voter d:always", "appoint d"},
		{"and stays one", "a:leader,public b:public,voter c:public,voter d:always,standby", ""},
		{"five have five votes", "a:leader,public b:public,voter c:public,voter d:always,standby e:always,standby", "vote d"},
		{"the fifth", "a:leader,public b:public,voter c:public,voter d:always,voter e:always,standby", "vote e"},

		{"a voter that is down keeps its vote", "a:leader,public b:public,voter c:public,voter,down d:public,standby", ""},
		{"not for ever", "a:leader,public b:public,voter c:public,voter,lost d:public,standby", "expel c"},
		{"then the other one has it", "a:leader,public b:public,voter c:public,appointed,lost d:public,standby", "dismiss c, vote d"},
		{"without anybody to replace it, it stays", "a:leader,public b:public,voter c:public,voter,lost", ""},
		{"a replacement is looked for", "a:leader,public b:public,voter c:public,voter,lost d:public", "appoint d"},
		{"a lost standby is replaced", "a:leader,public b:public,standby,lost c:public", "appoint c"},

		{"one whose disk is full for long is replaced too", "a:leader,public b:public,voter c:public,voter,halted d:public,standby", "expel c"},
		{"a log that is gone has no vote", "a:leader,public b:public,voter c:public,voter,forgetful", "expel c"},
		{"even if it leaves an even number", "a:leader,public b:public,voter c:public,voter,forgetful d:public,standby", "expel c"},
		{"it comes in again when its part runs", "a:leader,public b:public,voter c:public,appointed", "follow c"},
		{"before it does the others rest at one vote", "a:leader,public b:public,voter c:public,appointed,forgetful", "demote b"},
		{"a standby that forgot", "a:leader,public b:public,standby,forgetful", "expel b"},

		{"a standby goes at once", "a:leader b:standby,never", "expel b"},
		{"and is forgotten", "a:leader b:appointed,never", "dismiss b"},
		{"a voter goes when another one is ready", "a:leader b:voter,never c:voter d:always,standby", "vote d"},
		{"it goes then", "a:leader b:voter,never c:voter d:always,voter", "expel b"},
		{"three become one, by way of two", "a:leader b:voter,never c:voter", "expel b"},
		{"and not two", "a:leader c:voter", "demote c"},
		{"a leader hands over first", "a:leader,never b:voter c:voter", "transfer b"},
		{"to one that is well", "a:leader,never b:voter,suspect c:voter", "transfer c"},
		{"the only voter gives its standby a vote", "a:leader,never b:always,standby", "vote b"},
		{"and leadership", "a:leader,never b:always,voter", "transfer b"},
		{"the only one cannot go", "a:leader,never b:home", ""},
		{"nodes that were removed are no servers", "a:leader b:voter,never,lost c:voter", "expel b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := told(Config{}.Plan(world(t, c.world))); got != c.want {
				t.Errorf("%s:\ngot  %q\nwant %q", c.world, got, c.want)
			}
		})
	}
}

// carry does what a plan says, as if nothing failed.
func carry(in *Input, steps []Step) {
	node := func(id api.NodeID) *api.Node {
		return &in.Nodes[slices.IndexFunc(in.Nodes, func(n api.Node) bool { return n.ID == id })]
	}
	server := func(id api.NodeID) int {
		return slices.IndexFunc(in.Servers, func(s Server) bool { return s.ID == id })
	}
	for _, s := range steps {
		switch s.Kind {
		case Appoint, Dismiss:
			node(s.Node).Anchor = s.Kind == Appoint
			p := in.Progress[s.Node]
			p.Running = s.Kind == Appoint
			in.Progress[s.Node] = p
		case Record:
			node(s.Node).Voter = s.Voter
		case Follow:
			in.Servers = append(in.Servers, Server{ID: s.Node})
		case Vote:
			in.Servers[server(s.Node)].Voter = true
		case Demote:
			in.Servers[server(s.Node)].Voter = false
		case Expel:
			in.Servers = slices.Delete(in.Servers, server(s.Node), server(s.Node)+1)
		case Transfer:
			in.Self = s.Node
		}
	}
}

// Whatever the cluster is like, the plan comes to rest at an odd number of votes.
func TestPlanComesToRest(t *testing.T) {
	words := []string{"public", "home", "always", "never", "lost", "down", "young"}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		text := "n0:leader,public"
		for i := 1; i < 2+r.IntN(8); i++ {
			text += fmt.Sprintf(" n%d:%s", i, words[r.IntN(len(words))])
			if place := r.IntN(6); place < 3 {
				text += "," + []string{"voter", "standby", "appointed"}[place]
			}
		}
		in := world(t, text)
		rounds := 0
		for ; rounds < 60; rounds++ {
			steps := Config{}.Plan(in)
			if len(steps) == 0 {
				break
			}
			carry(&in, steps)
		}
		votes := 0
		for _, s := range in.Servers {
			if s.Voter {
				votes++
			}
		}
		switch {
		case rounds == 60:
			t.Fatalf("seed %d: %s never rests: %s", seed, text, told(Config{}.Plan(in)))
		case votes%2 == 0:
			t.Fatalf("seed %d: %s rests at %d votes", seed, text, votes)
		}
	}
}
