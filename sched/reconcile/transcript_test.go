package reconcile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

var rewrite = flag.Bool("rewrite", false, "write what happens now into testdata")

// TestTranscripts replays testdata/*.txt: a line "> command" and below it what
// came of it. See script for the commands.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(data))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(data) {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	w := newWorld()
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#") || line == "":
			out.WriteString(line + "\n")
		case strings.HasPrefix(line, "> "):
			out.WriteString(line + "\n" + w.script(t, strings.Fields(line[2:])))
		}
	}
	return out.String()
}

// script carries out one command.
func (w *world) script(t *testing.T, words []string) string {
	switch words[0] {
	case "node": // node NAME CPU MEMORY [zone=Z] [taint=T]
		w.scriptNode(t, words[1:])
	case "apply": // apply NAME field=value...
		w.scriptApply(t, words[1:])
	case "scale": // scale NAME N
		w.workload(words[1]).Spec.Replicas = number(t, words[2])
	case "delete": // delete NAME
		w.workload(words[1]).Deleted = true
	case "set": // set NODE STATE, or set REPLICA STATE [REASON...]
		if r := w.replica(api.ReplicaID(words[1])); r != nil {
			w.move(r, api.ReplicaState(words[2]))
			r.Reason = strings.Join(words[3:], " ")
		} else {
			w.setNode(words[1], api.NodeState(words[2]))
		}
		w.trim()
	case "restarts": // restarts REPLICA N
		w.replica(api.ReplicaID(words[1])).Restarts = number(t, words[2])
	case "wait": // wait DURATION
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "work": // every replica goes all the way, if its node lets it
		for range 4 {
			for i := range w.replicas {
				w.advance(&w.replicas[i])
			}
		}
		w.trim()
	case "plan": // makes a plan and carries it out
		return w.scriptPlan(t)
	case "show":
		return w.show()
	default:
		t.Fatalf("no command %q", words[0])
	}
	return ""
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) scriptNode(t *testing.T, words []string) {
	n := w.addNode(words[0], must[api.CPU](t)(api.ParseCPU(words[1])), must[api.Bytes](t)(api.ParseBytes(words[2])))
	for _, word := range words[3:] {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "zone":
			n.Inventory.Zone = value
		case "taint":
			n.Inventory.Taints = []api.Taint{{Key: value, Effect: api.EffectNoSchedule}}
		}
	}
}

func (w *world) scriptApply(t *testing.T, words []string) {
	s := api.WorkloadSpec{Replicas: 1}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "image":
			s.Image = value
		case "replicas":
			s.Replicas = number(t, value)
		case "cpu":
			s.Resources.CPU = must[api.CPU](t)(api.ParseCPU(value))
		case "memory":
			s.Resources.Memory = must[api.Bytes](t)(api.ParseBytes(value))
		case "order":
			s.Update.Order = value
		case "surge":
			s.Update.MaxSurge = number(t, value)
		case "minAvailable":
			n := number(t, value)
			s.Update.MinAvailable = &n
		case "offline": // MODE:AFTER
			mode, after, _ := strings.Cut(value, ":")
			s.OnDisconnect = api.OnDisconnect{Mode: mode, After: api.Duration(must[time.Duration](t)(time.ParseDuration(after)))}
		case "policy":
			s.Restart.Policy = value
		case "spread":
			s.Placement.Strategy, s.Placement.SpreadBy = api.StrategySpread, value
		case "apart":
			s.Placement.AntiAffinity = []api.AntiAffinity{{Topology: value, Required: true}}
		default:
			t.Fatalf("no field %q", key)
		}
	}
	w.put(words[0], s)
}

func (w *world) scriptPlan(t *testing.T) string {
	p := Make(w.input())
	if wrong := w.check(p); wrong != "" {
		t.Errorf("the plan %s", wrong)
	}
	var out strings.Builder
	for _, s := range p.Stop {
		fmt.Fprintf(&out, "  stop %s: %s\n", s.ID, s.Reason)
	}
	for _, id := range p.Forget {
		fmt.Fprintf(&out, "  forget %s\n", id)
	}
	for _, id := range p.Drop {
		fmt.Fprintf(&out, "  drop %s\n", id)
	}
	for _, id := range p.Promote {
		fmt.Fprintf(&out, "  promote %s\n", id)
	}
	for _, r := range p.Place {
		why, _, _ := strings.Cut(r.Decision, "best of")
		verb := "place"
		if r.Desired == api.DesiredStandby {
			verb = "stand by:"
		}
		fmt.Fprintf(&out, "  %s %s on %s %s\n", verb, r.ID, r.Node, strings.TrimSuffix(why, "; "))
	}
	if p.Renoted {
		for _, name := range []string{"a", "b", "db", "web"} {
			if reason := p.Unplaced[name]; reason != w.unplaced[name] {
				fmt.Fprintf(&out, "  %s: %s\n", name, strings.TrimSpace(reason+" "))
			}
		}
	}
	if !p.Wake.IsZero() {
		fmt.Fprintf(&out, "  again in %v\n", p.Wake.Sub(w.now))
	}
	if p.Empty() && p.Wake.IsZero() {
		out.WriteString("  nothing to do\n")
	}
	w.commit(p)
	text := strings.Split(out.String(), "\n")
	for i := range text {
		text[i] = strings.TrimRight(text[i], " ")
	}
	return strings.Join(text, "\n")
}

func (w *world) show() string {
	var out strings.Builder
	for _, r := range slices.Clone(w.replicas) {
		if !r.State.Terminal() {
			fmt.Fprintf(&out, "  %s rev %d on %s: %s, %s\n", r.ID, r.Revision, r.Node, r.State, r.Desired)
		}
	}
	return out.String()
}
