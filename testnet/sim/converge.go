package sim

import (
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// times are the samples of one kind of event: until 99 % of the members know.
type times []time.Duration

// at returns a percentile.
func (t times) at(p float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(t))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// convergence is how long members take to know, by what happened.
type convergence struct {
	join, leave, death times
	changes            int // commits that were spread
	sent               int // bytes of pushes
}

func (c *convergence) all() times { return slices.Concat(c.join, c.leave, c.death) }

// patience is when a measurement is given up.
const patience = 15 * time.Minute

// converge has a device join, leave, and die, again and again, in a cluster of n.
func converge(n, rounds int, p push, loss float64, seed uint64) convergence {
	w := newNetwork(n, loss, seed)
	c := newCluster(w, liveness.Config{})
	s := newSpreader(c, p)
	var out convergence
	c.run(10*time.Second, nil)
	for range rounds {
		out.join = append(out.join, s.join())
		out.leave = append(out.leave, s.leave())
		out.death = append(out.death, s.die())
	}
	out.changes, out.sent = c.commits, s.sent
	return out
}

// until runs until the cluster has reached a verdict and 99 % know of it, then
// lets everything calm down.
func (s *spreader) until(begun time.Duration, verdict func() bool) time.Duration {
	s.goal, s.done = 0, 0
	s.run(begun+patience, func() bool {
		if s.goal == 0 && verdict() {
			s.await()
		}
		return s.done > 0
	})
	took := s.now - begun
	s.run(s.now+patience, func() bool { return len(s.queue) == 0 && !s.busy })
	s.run(s.now+5*time.Second+time.Duration(s.rand.Int64N(int64(time.Second))), nil)
	return took
}

// join: a device's request to enrol arrives, then its first report.
func (s *spreader) join() time.Duration {
	i := len(s.hosts)
	s.hosts = append(s.hosts, s.device(i)) // a house of its own
	s.add(i, api.NodeJoining)
	s.commit(nil)
	begun := s.now
	if t, ok := s.roundTrip(0, i, s.now+commitTakes); ok {
		s.at(t+settle, func() {
			s.detector.Heard(s.nodes[i].ID, true, s.time(s.now))
			s.commit([]change{{s.now, i, api.NodeReady}})
		})
	}
	s.after(100*time.Millisecond, s.beating(i))
	return s.until(begun, func() bool { return s.nodes[i].State == api.NodeReady })
}

// someone is a device that is well.
func (s *spreader) someone() int {
	for {
		if i := 1 + s.rand.IntN(len(s.hosts)-1); !s.hosts[i].dead && s.nodes[i].State == api.NodeReady {
			return i
		}
	}
}

// leave: a daemon says goodbye.
func (s *spreader) leave() time.Duration {
	i := s.someone()
	begun := s.now
	if t, ok := s.send(i, 0, s.now); ok {
		s.at(t, func() { s.detector.Goodbye(s.nodes[i].ID, s.time(s.now)) })
	}
	s.hosts[i].dead = true
	return s.until(begun, func() bool { return s.nodes[i].State != api.NodeReady })
}

// die: a device loses power.
func (s *spreader) die() time.Duration {
	i := s.someone()
	s.hosts[i].dead = true
	return s.until(s.now, func() bool { return s.nodes[i].State == api.NodeDown })
}

// convergeSWIM is converge for the yardstick.
func convergeSWIM(n, rounds int, loss float64, seed uint64) convergence {
	var out convergence
	for r := range rounds {
		for kind, happen := range map[*times]func(*swim){&out.join: (*swim).join, &out.leave: (*swim).leave, &out.death: (*swim).die} {
			w := newNetwork(n, loss, seed+uint64(r))
			s := newSWIM(w, 1+w.rand.IntN(n-1))
			happen(s)
			s.run(patience, func() bool { return s.done > 0 })
			*kind = append(*kind, s.done)
		}
	}
	return out
}
