package liveness

import (
	"math"
	"time"
)

const (
	// minInterval is the spacing of heartbeats in a small mesh. At 234 bytes on
	// the wire each it costs an idle node 1.7 MB an hour and anchor; half of it
	// would cost twice that and gain a tenth of a second.
	minInterval = 500 * time.Millisecond
	// anchorRate is how many heartbeats per second an anchor has to see at most:
	// verifying the signature of one takes about 40 µs.
	anchorRate = 2000
)

// HeartbeatInterval returns how often each node of a cluster of that many says
// that it lives, so that an anchor sees no more than 2,000 heartbeats a second.
func HeartbeatInterval(nodes int) time.Duration {
	return max(minInterval, time.Duration(nodes)*time.Second/anchorRate)
}

// NextHeartbeat returns the spacing of two heartbeats in a cluster of that many;
// draw is a random number below 1. It differs from the interval by up to a
// fiftieth, so that nodes that started together do not stay in step. More would
// gain nothing, and look to the judge like a path that has to be given time.
func NextHeartbeat(nodes int, draw float64) time.Duration {
	every := HeartbeatInterval(nodes)
	return every + time.Duration((2*draw-1)*float64(every/50))
}

const (
	// memory is how long a node that came back from a silence is believed to be
	// one that falls silent for so long.
	memory = 2 * time.Hour
	// outage is the silence that is no trait of a link any more: it is left to
	// the witnesses, and teaches no patience.
	outage = 5 * time.Second

	// longMargin bounds what a large cluster, whose heartbeats are rare, adds to the
	// silence that they explain: an answer of a witness takes no longer there.
	longMargin = time.Second

	// A heartbeat that comes later than senders jitter was lost and sent again,
	// or held up. Several of them within a few minutes make a path rough: a link
	// that loses packets is also one that stalls, so silence on it means less.
	lateBy     = 80 * time.Millisecond
	roughAt    = 4.0             // late heartbeats, the older the less they count …
	roughHalve = 1 * time.Minute // … half after this time
)

// track is what is known of one node.
type track struct {
	last      time.Time     // heard; in the future for a newcomer
	since     time.Time     // it is known
	beat      time.Time     // the last heartbeat, zero before the first; probes are answered in between
	mean      time.Duration // spacing of heartbeats
	deviation time.Duration // of the spacing; grows at once, shrinks slowly
	longest   time.Duration // silence that it came back from, within memory
	longestAt time.Time
	away      time.Duration // the last silence that took it out of service …
	back      time.Time     // … and when it ended
	returns   int           // how often that happened, within memory
	late      float64       // late heartbeats, as of lateAt
	lateAt    time.Time
	rtt       time.Duration // to the judge; 0 when not measured
	broken    time.Time     // the last connection broke then; zero while connected
	goodbye   time.Time     // it said that it stops; zero otherwise
	arrears   arrears       // how often it is overdue
	inquiry   inquiry       // what witnesses say of it since it fell silent
}

// learn takes one spacing of heartbeats into account, as RFC 6298 does with
// round trips, except that the deviation shrinks more slowly than it grows: a
// link that loses a packet now and then must not look quiet in between.
func (t *track) learn(spacing, interval time.Duration, now time.Time) {
	if spacing <= 0 || spacing >= outage {
		return
	}
	if spacing > max(t.mean, interval)*11/10+lateBy {
		t.late, t.lateAt = t.lateness(now)+1, now
	}
	deviation := (spacing - t.mean).Abs()
	gain := time.Duration(16)
	if deviation > t.deviation {
		gain = 4
	}
	t.deviation += (deviation - t.deviation) / gain
	t.mean += (spacing - t.mean) / 8
	if spacing >= t.longest || now.Sub(t.longestAt) > memory {
		t.longest, t.longestAt = spacing, now
	}
}

// lateness is how many late heartbeats count.
func (t *track) lateness(now time.Time) float64 {
	return t.late * math.Exp2(-now.Sub(t.lateAt).Seconds()/roughHalve.Seconds())
}

// rough tells whether a path loses or delays heartbeats again and again. Of a path
// that is not known for long, more is made of what was seen of it, up to twice.
func (t *track) rough(now time.Time) bool {
	known := 1 - math.Exp2(-now.Sub(t.since).Seconds()/roughHalve.Seconds())
	return t.late > 0 && t.lateness(now) >= roughAt*max(known, 0.5)
}

// doubtAfter is how much silence makes the judge ask witnesses: more than the
// spacing explains, or any heartbeat that is overdue on a path that is not well.
func (d *Detector) doubtAfter(t *track) time.Duration {
	if t.arrears.chronic() {
		return min(d.interval*5/4, d.explained(t))
	}
	return d.explained(t)
}

// explained is how much silence a node's spacing explains. On the best of paths
// it leaves witnesses the time to answer before a verdict may fall.
func (d *Detector) explained(t *track) time.Duration {
	return min(max(t.mean, d.interval)+max(4*t.deviation, d.interval*3/20), d.cfg.Ceiling)
}

// suspectAfter is how much silence takes a node out of service.
func (d *Detector) suspectAfter(t *track) time.Duration {
	return min(max(d.cfg.SuspectFloor, d.explained(t)+min(d.interval, longMargin)/4), d.cfg.Ceiling)
}

// downAfter is how much silence is needed for a verdict of death; floor is the
// least of it.
func (d *Detector) downAfter(t *track, floor time.Duration, now time.Time) time.Duration {
	after := max(floor, d.explained(t)+min(d.interval, longMargin)/2)
	if t.rough(now) {
		after = max(after, d.cfg.RoughFloor, d.cfg.RoughFloor+d.interval-minInterval)
	}
	if t.longest > d.suspectAfter(t) && now.Sub(t.longestAt) <= memory {
		after = max(after, t.longest+d.interval)
	}
	return min(after, d.cfg.Ceiling)
}
