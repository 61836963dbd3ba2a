package node

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// uplink is a bandwidth whose device sends what egress says, and that can
// measure to one peer.
func uplink(known reading, egress func() float64, dial func(context.Context, api.NodeID) (gaugeConn, error)) *bandwidth {
	return &bandwidth{
		known: known, egress: egress, dial: dial,
		peers: func() []api.NodeID { return []api.NodeID{"anchor"} },
		load:  func(*reading) error { return nil },
		save:  func(reading) error { return nil },
		log:   zap.NewNop(),
		count: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"how"}),
	}
}

func TestTrafficStandsForAMeasurement(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	yesterday := noon.Add(-25 * time.Hour)
	for name, tt := range map[string]struct {
		known reading
		rate  api.Bandwidth
		want  reading
	}{
		"nothing known, and traffic proves no limit": {reading{}, 50e6, reading{}},
		"less than known, still fresh":               {reading{20e6, noon.Add(-time.Hour)}, 1e6, reading{20e6, noon.Add(-time.Hour)}},
		"less than known, and old":                   {reading{20e6, yesterday}, 10e6, reading{20e6, yesterday}},
		"near to what is known, and old":             {reading{20e6, yesterday}, 17e6, reading{20e6, noon}},
		"near to what is known, still fresh":         {reading{20e6, noon.Add(-time.Hour)}, 17e6, reading{20e6, noon.Add(-time.Hour)}},
		"more than is known":                         {reading{20e6, noon.Add(-time.Hour)}, 31_234_567, reading{31e6, noon}},
	} {
		t.Run(name, func(t *testing.T) {
			b := uplink(tt.known, func() float64 { return float64(tt.rate) / 8 }, nil)
			b.watch(noon)
			if b.known != tt.want {
				t.Errorf("got %+v, want %+v", b.known, tt.want)
			}
		})
	}
}

func TestPeakOfADayCounts(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	rate := 18e6 / 8
	b := uplink(reading{20e6, noon.Add(-time.Hour)}, func() float64 { return rate }, nil)
	b.watch(noon)
	rate = 0 // it is quiet when the reading gets old
	b.watch(noon.Add(24 * time.Hour))
	if want := (reading{20e6, noon.Add(24 * time.Hour)}); b.known != want {
		t.Errorf("got %+v, want %+v", b.known, want)
	}
}

func TestOperatorKnowsBetter(t *testing.T) {
	b := uplink(reading{20e6, time.Now()}, nil, nil)
	if got, how := b.current(); got != 20e6 || how != api.BandwidthMeasured {
		t.Errorf("got %s, %s", got, how)
	}
	b.operator = 50e6
	if got, how := b.current(); got != 50e6 || how != api.BandwidthOperator {
		t.Errorf("got %s, %s", got, how)
	}
	b = uplink(reading{}, nil, nil)
	if got, how := b.current(); got != 0 || how != "" {
		t.Errorf("got %s, %q of a node that knows nothing", got, how)
	}
}

// loopback returns both ends of a connection of this machine.
func loopback(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// counted counts what is written.
type counted struct {
	*net.TCPConn
	sent int
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.sent += n
	return n, err
}

func TestMeasuring(t *testing.T) {
	near, far := loopback(t)
	served := make(chan error, 1)
	go func() { served <- newGaugeServer().serve(far) }()
	conn := &counted{TCPConn: near}
	b := uplink(reading{}, nil, func(context.Context, api.NodeID) (gaugeConn, error) { return conn, nil })
	if err := b.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	found, how := b.current()
	if found <= 0 || how != api.BandwidthMeasured || conn.sent > gaugeBytes {
		t.Errorf("found %s, %q by sending %d bytes", found, how, conn.sent)
	}
}

func TestPeerThatDoesNotAnswer(t *testing.T) {
	near, far := loopback(t)
	far.Close()
	b := uplink(reading{}, nil, func(context.Context, api.NodeID) (gaugeConn, error) { return near, nil })
	if err := b.measure(t.Context()); err == nil {
		t.Errorf("no error; known is %+v", b.known)
	}
	b.dial = func(context.Context, api.NodeID) (gaugeConn, error) { return nil, errors.New("away") }
	if err := b.measure(t.Context()); err == nil || b.known != (reading{}) {
		t.Errorf("known is %+v, %v", b.known, err)
	}
	b.peers = func() []api.NodeID { return nil }
	if err := b.measure(t.Context()); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("nobody to ask: %v", err)
	}
}

func TestMeasuringIsRationed(t *testing.T) {
	now := time.Now()
	g := newGaugeServer()
	if !g.admit("a", now) || g.admit("b", now) {
		t.Error("two measure at once, or nobody does")
	}
	g.done()
	if g.admit("a", now.Add(time.Minute)) || !g.admit("b", now.Add(time.Minute)) {
		t.Error("a peer measures again after a minute, or another may not")
	}
	g.done()
	if !g.admit("a", now.Add(gaugeShare)) {
		t.Error("a peer may never measure again")
	}
}

func FuzzTally(f *testing.F) {
	f.Add(make([]byte, tallySize))
	f.Add(tally{1 << 20, 100 * time.Millisecond}.encode())
	f.Add(tally{gaugeBytes, -1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != tallySize {
			return // exactly so much is read
		}
		rate, err := decodeTally(b).rate()
		if err == nil && (rate < 0 || rate > 8*gaugeBytes*1e9) {
			t.Errorf("%x is %d bits per second", b, rate)
		}
		if r := rounded(rate); r < 0 || r > 2*rate+10 {
			t.Errorf("%d is rounded to %d", rate, r)
		}
	})
}

func TestRounded(t *testing.T) {
	for b, want := range map[api.Bandwidth]api.Bandwidth{0: 0, 7: 7, 99: 99, 104: 100, 12_345_678: 12e6, 998e6: 1000e6} {
		if got := rounded(b); got != want {
			t.Errorf("%d is rounded to %d, want %d", b, got, want)
		}
	}
}

func TestInventoryOfThisMachine(t *testing.T) {
	inv, err := takeInventory(t.Context(), &Config{Name: "n", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if inv.Capacity.CPU < 1000 || inv.Capacity.Memory <= 0 || inv.Kernel == "" || inv.Arch == "" || inv.StorageClass == "" {
		t.Errorf("got %+v", inv)
	}
	if inv.Capacity.Bandwidth != 0 {
		t.Errorf("a bandwidth of %s was made up", inv.Capacity.Bandwidth)
	}
}
