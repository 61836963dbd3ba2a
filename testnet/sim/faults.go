package sim

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// pauses says who is silent for 2 s, and for whom.
type pauses int

const (
	ofPaths   pauses = iota // between a device and the anchor; others reach it
	ofHouses                // of a house's uplink; its devices reach each other
	ofDaemons               // of a device's daemon: its kernel answers its neighbours
	ofHosts                 // of a device as a whole: nobody can tell it from a dead one
)

const (
	pauseTakes = 2 * time.Second
	pauseEvery = 10 * time.Minute // of each device or house, on average
	warmUp     = time.Minute      // in which the detector gets to know the paths
)

// verdicts counts what became of devices that were alive all the time.
type verdicts struct {
	pauses  int
	hours   float64 // of all devices together
	suspect int
	cutOff  int
	down    int
	again   int // of those, devices that were declared down before
}

// falseDeaths lets a cluster run with losses and pauses.
func falseDeaths(n int, d time.Duration, loss float64, kind pauses, cfg liveness.Config, seed uint64) verdicts {
	w := newNetwork(n, loss, seed)
	c := newCluster(w, cfg)
	var out verdicts
	houses := make([][]int, w.hosts[n-1].house)
	for i := 1; i < n; i++ {
		h := w.hosts[i].house - 1
		houses[h] = append(houses[h], i)
	}
	pausing := func(hosts []int) {
		var pause func()
		wait := func() time.Duration {
			return pauseTakes + time.Duration(w.rand.ExpFloat64()*float64(pauseEvery))
		}
		pause = func() {
			out.pauses++
			for _, i := range hosts {
				switch kind {
				case ofHosts:
					w.hosts[i].frozen = w.now + pauseTakes
				case ofDaemons:
					w.hosts[i].hung = w.now + pauseTakes
				default:
					w.hosts[i].stalled = w.now + pauseTakes
				}
				w.hosts[i].offline = kind == ofHouses
			}
			w.after(wait(), pause)
		}
		w.after(warmUp+wait(), pause)
	}
	for _, hosts := range houses {
		if kind == ofHouses {
			pausing(hosts)
			continue
		}
		for _, i := range hosts {
			pausing([]int{i})
		}
	}
	c.run(d, nil)
	out.hours = float64(n-1) * d.Hours()
	before := make(map[int]bool)
	for _, ch := range c.changes {
		switch ch.to {
		case api.NodeSuspect:
			out.suspect++
		case api.NodeCutOff:
			out.cutOff++
		case api.NodeDown:
			out.down++
			if before[ch.node] {
				out.again++
			}
			before[ch.node] = true
		}
	}
	return out
}

// trial is how a cluster of 1,000 takes a fault of some of its devices.
type trial struct {
	name    string
	faulty  int
	out     int // of them, taken out of service
	down    int // of them, declared down
	healthy int // others that were declared down or cut off: should be none
	nervous int // others that were suspect for a moment
	changes int // commits with a death
	flaps   int // deaths of a device that had been dead before
	first   time.Duration
	last    time.Duration // the last faulty one went out of service
}

// The scenarios, in order.
const (
	crash = iota
	mute
	deaf
	flipFlop
	lossy
)

// rapid plays the scenarios of the Rapid paper (Suresh et al., ATC 2018, §7).
func rapid(n int, seed uint64) []trial {
	tenth := n / 100
	return []trial{
		try("crash of 1 % at once", n, tenth, seed, func(h *host, _ time.Duration) { h.dead = true }),
		try("1 % send nothing", n, tenth, seed, func(h *host, now time.Duration) { h.lossOut, h.faulty = 1, now }),
		try("1 % receive nothing", n, tenth, seed, func(h *host, now time.Duration) { h.lossIn, h.faulty = 1, now }),
		try("1 % send nothing, 20 s on and off", n, tenth, seed, func(h *host, now time.Duration) {
			h.lossOut, h.faulty, h.flip = 1, now, 20*time.Second
		}),
		unreliable(n, seed),
	}
}

// unreliable lets some devices be heard now and then.
func unreliable(n int, seed uint64) trial {
	return try("1 % lose 80 % both ways", n, n/100, seed, func(h *host, now time.Duration) { h.lossOut, h.lossIn, h.faulty = .8, .8, now })
}

func try(name string, n, faulty int, seed uint64, break_ func(*host, time.Duration)) trial {
	w := newNetwork(n, 0.001, seed)
	c := newCluster(w, liveness.Config{})
	c.run(30*time.Second, nil)
	c.changes = nil
	begun := w.now
	bad := make(map[int]bool)
	for len(bad) < faulty {
		i := 1 + w.rand.IntN(n-1)
		if !bad[i] {
			bad[i] = true
			break_(&w.hosts[i], w.now)
		}
	}
	c.run(begun+2*time.Minute, nil)
	t := trial{name: name, faulty: faulty}
	out, down, hurt, nervous := map[int]bool{}, map[int]bool{}, map[int]bool{}, map[int]bool{}
	deaths := map[time.Duration]bool{}
	for _, ch := range c.changes {
		switch {
		case ch.to == api.NodeReady:
			continue
		case !bad[ch.node] && ch.to == api.NodeSuspect:
			nervous[ch.node] = true
			continue
		case !bad[ch.node]:
			hurt[ch.node] = true
			continue
		case !out[ch.node]:
			t.last = ch.at - begun
			if len(out) == 0 {
				t.first = t.last
			}
		}
		out[ch.node] = true
		if ch.to == api.NodeDown {
			if down[ch.node] {
				t.flaps++
			}
			down[ch.node] = true
			deaths[ch.at] = true
		}
	}
	t.out, t.down, t.healthy, t.nervous, t.changes = len(out), len(down), len(hurt), len(nervous), len(deaths)
	return t
}

// cuts has a device of a small cluster lose power, again and again, and returns
// how long it took until it was declared down.
func cuts(n, rounds int, loss float64, seed uint64) times {
	var out times
	for r := range rounds {
		w := newNetwork(n, loss, seed+uint64(r))
		c := newCluster(w, liveness.Config{})
		c.run(30*time.Second+time.Duration(w.rand.Int64N(int64(time.Second))), nil)
		i, begun := 1+w.rand.IntN(n-1), w.now
		w.hosts[i].dead = true
		c.run(begun+patience, func() bool { return c.nodes[i].State == api.NodeDown })
		out = append(out, w.now-begun)
	}
	return out
}
