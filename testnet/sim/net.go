package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	leastRTO    = 200 * time.Millisecond // TCP's; QUIC is quicker
	giveUp      = 10 * time.Second       // after which a message counts for nothing
	idleTimeout = 30 * time.Second       // a connection that hears nothing for so long is closed
	jitterMean  = 3 * time.Millisecond
)

// host is a device and its way to the others. Times are those at which
// something begins or ends; the zero value is a healthy device.
type host struct {
	house   int
	half    time.Duration // one way to the backbone
	dead    bool
	frozen  time.Duration // until then nothing goes in or out
	hung    time.Duration // until then its daemon does nothing, and its kernel answers
	stalled time.Duration // until then nothing passes between it and the anchor …
	offline bool          // … nor, while stalled, between it and any other house
	lossOut float64       // share of packets lost on the way out …
	lossIn  float64       // … and in
	faulty  time.Duration // the losses began then
	flip    time.Duration // if not zero: they come and go, each for so long
}

// network connects hosts; host 0 is the anchor.
type network struct {
	*clock
	rand  *rand.Rand
	hosts []host
	loss  float64 // of every packet
}

// newNetwork makes the anchor and n-1 devices in houses of one to four.
func newNetwork(n int, loss float64, seed uint64) *network {
	w := &network{clock: &clock{}, rand: rand.New(rand.NewPCG(seed, 1)), loss: loss}
	house, left, size := 0, 0, 0
	for i := range n {
		if i == 0 {
			w.hosts = append(w.hosts, host{half: time.Millisecond})
			continue
		}
		if left == 0 {
			house++
			size = size%4 + 1
			left = size
		}
		left--
		w.hosts = append(w.hosts, w.device(house))
	}
	return w
}

func (w *network) device(house int) host {
	half := 12 * math.Exp(0.6*w.rand.NormFloat64())
	return host{house: house, half: time.Duration(min(half, 150) * float64(time.Millisecond))}
}

// latency is how long one packet takes from a to b.
func (w *network) latency(a, b int) time.Duration {
	if w.hosts[a].house == w.hosts[b].house {
		return time.Duration(500+w.rand.IntN(1500)) * time.Microsecond
	}
	return w.hosts[a].half + w.hosts[b].half + time.Duration(w.rand.ExpFloat64()*float64(jitterMean))
}

// down tells whether a host's daemon neither sends nor answers at a time.
func (h *host) down(t time.Duration) bool { return h.frozen > t || h.hung > t }

// stands tells whether a neighbour, who is asked at t, finds the kernel of a
// host alive within the time given. Others cannot be told: they would have to
// come through its NAT.
func (w *network) stands(neighbour, h int, t time.Duration) bool {
	host := &w.hosts[h]
	if w.hosts[neighbour].house != host.house || host.dead || host.frozen > t {
		return false
	}
	out, in := host.lossy(t)
	return w.rand.Float64() >= 1-(1-out)*(1-in)
}

// lossy returns a host's own losses at a time.
func (h *host) lossy(t time.Duration) (out, in float64) {
	if t < h.faulty || h.flip > 0 && (t-h.faulty)/h.flip%2 == 1 {
		return 0, 0
	}
	if h.lossIn == 1 && h.flip == 0 && t-h.faulty > idleTimeout {
		return 1, 1 // its connections have been closed
	}
	return h.lossOut, h.lossIn
}

// passes tells whether a packet that is sent at t arrives.
func (w *network) passes(a, b int, t time.Duration) bool {
	from, to := &w.hosts[a], &w.hosts[b]
	if to.dead || from.down(t) || to.down(t) {
		return false
	}
	if a == 0 && to.stalled > t || b == 0 && from.stalled > t {
		return false
	}
	if from.house != to.house && (from.offline && from.stalled > t || to.offline && to.stalled > t) {
		return false
	}
	out, _ := from.lossy(t)
	_, in := to.lossy(t)
	return w.rand.Float64() >= w.loss && (out == 0 || w.rand.Float64() >= out) && (in == 0 || w.rand.Float64() >= in)
}

// send returns when a message on a stream that is sent at t arrives.
func (w *network) send(a, b int, t time.Duration) (time.Duration, bool) {
	rto := max(leastRTO, 4*(w.hosts[a].half+w.hosts[b].half))
	for begun := t; t-begun < giveUp; rto *= 2 {
		if w.passes(a, b, t) {
			return t + w.latency(a, b), true
		}
		t += rto
	}
	return 0, false
}

// roundTrip returns when the answer to a message that is sent at t arrives.
func (w *network) roundTrip(a, b int, t time.Duration) (time.Duration, bool) {
	t, ok := w.send(a, b, t)
	if !ok {
		return 0, false
	}
	return w.send(b, a, t)
}
