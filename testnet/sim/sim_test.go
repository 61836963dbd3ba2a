package sim

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

const seed = 7

func TestEverybodyKnowsSoon(t *testing.T) {
	c := converge(200, 5, delta(200), 0.01, seed)
	if got := c.all().at(1); got > 5*time.Second {
		t.Errorf("seed %d: a change took %s to be known: %+v", seed, got, c)
	}
	if got := c.death.at(.5); got > 1500*time.Millisecond {
		t.Errorf("seed %d: half of the deaths took longer than %s", seed, got)
	}
	if y := convergeSWIM(200, 3, 0.01, seed); y.death.at(.5) < 8*time.Second || y.death.at(.5) > 20*time.Second {
		t.Errorf("seed %d: the yardstick declares a death in %s: its published parameters say about 12 s", seed, y.death.at(.5))
	}
}

func TestNobodyAliveIsDeclaredDown(t *testing.T) {
	for name, kind := range map[string]pauses{"paths": ofPaths, "houses": ofHouses, "daemons": ofDaemons, "hosts": ofHosts} {
		if v := falseDeaths(201, 15*time.Minute, 0.1, kind, liveness.Config{}, seed); v.down > 0 {
			t.Errorf("seed %d, pauses of %s: %+v", seed, name, v)
		}
	}
}

func TestFaultsTakeExactlyTheFaultyOut(t *testing.T) {
	all := rapid(200, seed)
	for _, r := range all {
		if r.out != r.faulty || r.healthy > 0 {
			t.Errorf("seed %d, %s: %+v", seed, r.name, r)
		}
	}
	for _, r := range []trial{all[crash], all[mute], all[flipFlop]} {
		if r.down != r.faulty || r.changes > 2 || r.flaps > 0 {
			t.Errorf("seed %d, %s: %+v", seed, r.name, r)
		}
	}
	if r := unreliable(1000, seed); r.out != r.faulty || r.down != r.faulty || r.healthy > 0 || r.changes > 2 || r.flaps > 0 {
		t.Errorf("seed %d, %s: %+v", seed, r.name, r)
	}
}

func TestCutIsADeathWithinASecond(t *testing.T) {
	if c := cuts(9, 60, 0, seed); c.at(.5) > 850*time.Millisecond || c.at(1) > 1200*time.Millisecond {
		t.Errorf("seed %d: P50 %s, at most %s", seed, c.at(.5), c.at(1))
	}
	if c := cuts(9, 60, 0.01, seed); c.at(.5) > 900*time.Millisecond || c.at(.95) > 1800*time.Millisecond {
		t.Errorf("seed %d, with losses: P50 %s, P95 %s", seed, c.at(.5), c.at(.95))
	}
}

func TestSameSeedSameStory(t *testing.T) {
	size := Size{Clusters: []int{50}, Rounds: 2, Pausing: 50, For: 5 * time.Minute, Rapid: 100}
	var one, two strings.Builder
	a, b := Run(&one, size, seed), Run(&two, size, seed)
	if one.String() != two.String() || !reflect.DeepEqual(a, b) {
		t.Errorf("two runs with seed %d differ:\n%s\n%s", seed, one.String(), two.String())
	}
}

func TestWatchingOverAClusterIsMeasured(t *testing.T) {
	var out strings.Builder
	figures := AnchorCPU(&out, 100)
	if len(figures) != 1 || figures[0].Value <= 0 || !strings.Contains(out.String(), "of a core") {
		t.Errorf("got %+v, %s", figures, out.String())
	}
}

func TestClockKeepsOrder(t *testing.T) {
	var c clock
	var got []int
	for i, at := range []time.Duration{5, 3, 3, 9, 1} {
		c.at(at, func() { got = append(got, i) })
	}
	c.run(8, nil)
	if want := []int{4, 1, 2, 0}; !slices.Equal(got, want) || c.now != 8 {
		t.Errorf("events happened as %v until %d, want %v until 8", got, c.now, want)
	}
}
