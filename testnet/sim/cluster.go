package sim

import (
	"fmt"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

const (
	measureEvery = 5 * time.Second
	commitTakes  = 10 * time.Millisecond // one fsync, and a near majority
	reportTakes  = 20 * time.Millisecond // from a view that calls a node dead to its report
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// change is a state of a node that was committed.
type change struct {
	at   time.Duration // of the decision
	node int
	to   api.NodeState
}

// cluster is a leading anchor and the nodes it watches.
type cluster struct {
	*network
	detector *liveness.Detector
	nodes    []api.Node
	index    map[api.NodeID]int
	born     []time.Duration // of the daemon
	reported []bool          // a report is on its way
	changes  []change
	commits  int                    // entries in the log
	changed  func(changes []change) // called for each commit
}

func newCluster(w *network, cfg liveness.Config) *cluster {
	c := &cluster{network: w, detector: liveness.New(cfg), index: make(map[api.NodeID]int)}
	for i := range w.hosts {
		c.add(i, api.NodeReady)
	}
	c.detector.Step(c.nodes, c.nodes[0].ID, epoch) // it knows the size of the cluster now
	for i := range w.hosts {
		if i > 0 {
			c.detector.Heard(c.nodes[i].ID, true, epoch)
			c.after(time.Duration(w.rand.Int64N(int64(c.interval()))), c.beating(i))
		}
	}
	c.after(c.detector.Pace(), c.judge)
	c.after(0, c.measure)
	return c
}

func (c *cluster) interval() time.Duration { return liveness.HeartbeatInterval(len(c.nodes)) }

func (c *cluster) time(t time.Duration) time.Time { return epoch.Add(t) }

func (c *cluster) add(i int, s api.NodeState) {
	id := api.NodeID(fmt.Sprintf("n%d", i))
	zone := "cloud"
	if i > 0 {
		zone = fmt.Sprintf("h%d", c.hosts[i].house)
	}
	c.nodes = append(c.nodes, api.Node{ID: id, State: s, Voter: i == 0, Inventory: api.Inventory{Name: string(id), Zone: zone}})
	c.index[id] = i
	c.born = append(c.born, c.now)
	c.reported = append(c.reported, false)
}

// beating returns the heartbeat of a node, which plans the next one.
func (c *cluster) beating(i int) func() {
	var beat func()
	id, h := c.nodes[i].ID, i
	heard := func() { c.heard(h, id, true) }
	born := c.born[i]
	beat = func() {
		host := &c.hosts[i]
		switch {
		case host.dead || c.born[i] != born:
			return
		case host.down(c.now):
			c.at(max(host.frozen, host.hung), beat)
			return
		}
		if t, ok := c.send(i, 0, c.now); ok {
			c.at(t, heard)
		}
		c.after(liveness.NextHeartbeat(len(c.nodes), c.rand.Float64()), beat)
	}
	return beat
}

// heard is a sign of life; a node that was given up reports what it runs.
func (c *cluster) heard(i int, id api.NodeID, heartbeat bool) {
	c.detector.Heard(id, heartbeat, c.time(c.now))
	if c.nodes[i].State != api.NodeDown || c.reported[i] {
		return
	}
	c.reported[i] = true
	t, ok := c.roundTrip(0, i, c.now+reportTakes)
	if !ok {
		c.reported[i] = false
		return
	}
	c.at(t, func() {
		c.reported[i] = false
		if c.nodes[i].State != api.NodeDown {
			return
		}
		if c.detector.Returns(id, c.time(c.now)) != "" {
			c.nodes[i].Unstable = true
			c.commit([]change{{c.now, i, api.NodeSuspect}})
			return
		}
		c.commit([]change{{c.now, i, api.NodeReady}})
	})
}

func (c *cluster) measure() {
	for i := 1; i < len(c.nodes); i++ {
		c.detector.Measured(c.nodes[i].ID, 2*(c.hosts[0].half+c.hosts[i].half), c.time(c.now))
	}
	c.after(measureEvery, c.measure)
}

func (c *cluster) judge() {
	verdicts, asks := c.detector.Step(c.nodes, c.nodes[0].ID, c.time(c.now))
	for _, a := range asks {
		c.ask(a)
	}
	if len(verdicts) > 0 {
		var changes []change
		for _, v := range verdicts {
			changes = append(changes, change{c.now, c.index[v.Node], v.To})
		}
		c.commit(changes)
	}
	c.after(c.detector.Pace(), c.judge)
}

func (c *cluster) commit(changes []change) {
	c.commits++
	for _, ch := range changes {
		n := &c.nodes[ch.node]
		n.State, n.StateSince = ch.to, c.time(c.now)
		n.Unstable = n.Unstable && ch.to == api.NodeSuspect
		c.changes = append(c.changes, ch)
	}
	if c.changed != nil {
		c.changed(changes)
	}
}

// ask has the witnesses and the anchor itself probe a node.
func (c *cluster) ask(a liveness.Ask) {
	target := c.index[a.Node]
	if t, ok := c.roundTrip(0, target, c.now); ok && t-c.now <= a.Within {
		c.at(t, func() { c.heard(target, a.Node, false) })
	}
	for _, id := range a.Witnesses {
		w := c.index[id]
		asked, ok := c.send(0, w, c.now)
		if !ok || c.hosts[w].dead {
			continue
		}
		answered := asked + a.Within
		back, reached := c.roundTrip(w, target, asked)
		if reached = reached && back <= answered; reached {
			answered = back
		}
		report := liveness.WitnessReport{Witness: id, Node: a.Node, Reached: reached, Frozen: !reached && c.stands(w, target, asked)}
		if t, ok := c.send(w, 0, answered); ok {
			c.at(t, func() { c.detector.Witness(report, c.time(c.now)) })
		}
	}
}
