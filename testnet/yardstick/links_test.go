package yardstick

import (
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// links connect members as testnet/sim connects devices: a lognormal way to the
// backbone with a median of 12 ms, jitter of 3 ms on average, losses of packets.
type links struct {
	mu    sync.Mutex
	rand  *rand.Rand
	loss  float64
	ports map[string]*port // by address
}

// port is one member's end. It implements memberlist.Transport.
type port struct {
	links   *links
	addr    *net.UDPAddr
	half    time.Duration // one way to the backbone
	dead    bool          // the links' lock is held
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var errDead = errors.New("nobody answers")

func (l *links) add(i int) *port {
	l.mu.Lock()
	defer l.mu.Unlock()
	half := min(12*math.Exp(0.6*l.rand.NormFloat64()), 150)
	p := &port{
		links: l, addr: &net.UDPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)), Port: 7946},
		half:    time.Duration(half * float64(time.Millisecond)),
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 16),
	}
	l.ports[p.addr.String()] = p
	return p
}

// way returns the other end and how long a packet takes to it; false when it
// does not arrive.
func (p *port) way(to string, lossy bool) (*port, time.Duration, bool) {
	l := p.links
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.ports[to]
	if o == nil || o.dead || p.dead || lossy && l.rand.Float64() < l.loss {
		return nil, 0, false
	}
	return o, p.half + o.half + time.Duration(l.rand.ExpFloat64()*float64(3*time.Millisecond)), true
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.IP, p.addr.Port, nil
}

func (p *port) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	o, takes, ok := p.way(to, true)
	if !ok {
		return now, nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: p.addr}
	time.AfterFunc(takes, func() {
		packet.Timestamp = time.Now()
		select {
		case o.packets <- packet:
		default: // a full socket buffer drops, too
		}
	})
	return now, nil
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// DialTimeout returns one end of a stream, after a round trip. What is sent on it
// takes no time: a stream carries whole messages, and their size is not what is
// measured here.
func (p *port) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	o, takes, ok := p.way(to, false)
	if !ok {
		time.Sleep(timeout)
		return nil, errDead
	}
	time.Sleep(2 * takes)
	near, far := net.Pipe()
	select {
	case o.streams <- far:
		return near, nil
	default:
		return nil, errDead
	}
}

func (p *port) StreamCh() <-chan net.Conn { return p.streams }

func (p *port) Shutdown() error {
	p.kill()
	return nil
}

func (p *port) kill() {
	p.links.mu.Lock()
	defer p.links.mu.Unlock()
	p.dead = true
}
