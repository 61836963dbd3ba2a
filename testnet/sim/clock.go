package sim

import "time"

// clock is virtual time: what is due happens in order, nothing happens between.
type clock struct {
	now   time.Duration
	seq   uint64
	queue []event
}

type event struct {
	at  time.Duration
	seq uint64 // events of the same time happen in the order they were planned in
	do  func()
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// at plans something; what is due in the past happens next.
func (c *clock) at(t time.Duration, do func()) {
	c.seq++
	e := event{max(t, c.now), c.seq, do}
	c.queue = append(c.queue, e)
	i := len(c.queue) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(c.queue[parent]) {
			break
		}
		c.queue[i] = c.queue[parent]
		i = parent
	}
	c.queue[i] = e
}

func (c *clock) after(d time.Duration, do func()) { c.at(c.now+d, do) }

// run lets events happen until the given time, or until stop says so.
func (c *clock) run(until time.Duration, stop func() bool) {
	for len(c.queue) > 0 && c.queue[0].at <= until {
		e := c.pop()
		c.now = e.at
		e.do()
		if stop != nil && stop() {
			return
		}
	}
	c.now = until
}

func (c *clock) pop() event {
	top := c.queue[0]
	n := len(c.queue) - 1
	e := c.queue[n]
	c.queue[n] = event{}
	c.queue = c.queue[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && c.queue[child+1].before(c.queue[child]) {
			child++
		}
		if !c.queue[child].before(e) {
			break
		}
		c.queue[i] = c.queue[child]
		i = child
	}
	c.queue[i] = e
	return top
}
