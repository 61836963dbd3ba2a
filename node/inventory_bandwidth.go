package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/p2p"
)

const (
	bandwidthFile = "bandwidth.json"

	gaugeBytes  = 4 << 20     // that one measurement sends at most …
	gaugeTime   = time.Second // … within this time
	gaugeWarmup = 256 << 10   // bytes that do not count: the connection is finding its pace
	gaugeChunk  = 32 << 10
	gaugeWait   = 5 * time.Second // for the answer, and for a sender that stalls

	gaugeEvery = 24 * time.Hour
	gaugeFirst = time.Minute      // after the start: what people wait for comes first
	gaugeRetry = 10 * time.Minute // after a failure, or while there is nobody to ask
	gaugeShare = 10 * time.Minute // how often one peer may measure here

	passiveEvery = 10 * time.Second // how often real traffic is looked at
	// passiveEnough is how much of the known bandwidth real traffic must have
	// reached to stand for a measurement.
	passiveEnough = 0.8
)

// reading is a bandwidth with the time it was found; saved, so that a restart
// does not measure again.
type reading struct {
	Bandwidth api.Bandwidth `json:"bandwidth_bps"`
	At        time.Time     `json:"at"`
}

// bandwidth finds out how much this device can send to the internet. What real
// traffic shows is preferred; once a day at most, and only when there was not
// enough of that, up to 4 MiB are sent to an anchor or a relay.
type bandwidth struct {
	operator api.Bandwidth // what the operator says, 0 for nothing
	egress   func() float64
	peers    func() []api.NodeID // worth measuring to, none on the LAN
	dial     func(context.Context, api.NodeID) (gaugeConn, error)
	load     func(*reading) error
	save     func(reading) error
	log      *zap.Logger
	count    *prometheus.CounterVec

	mu    sync.Mutex
	known reading
	peak  api.Bandwidth // of real traffic since the last reading
}

// gaugeConn is a connection whose writing side can be closed alone.
type gaugeConn interface {
	net.Conn
	CloseWrite() error
}

// current returns the bandwidth and how it is known, 0 and "" while it is not.
func (b *bandwidth) current() (api.Bandwidth, api.BandwidthSource) {
	if b.operator > 0 {
		return b.operator, api.BandwidthOperator
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known.Bandwidth == 0 {
		return 0, ""
	}
	return b.known.Bandwidth, api.BandwidthMeasured
}

// run measures until ctx ends.
func (b *bandwidth) run(ctx context.Context) error {
	if b.operator > 0 {
		<-ctx.Done()
		return nil
	}
	b.recall()
	due := time.Now().Add(gaugeFirst + rand.N(gaugeFirst))
	for retry.Sleep(ctx, retry.Jitter(passiveEvery)) == nil {
		b.watch(time.Now())
		if now := time.Now(); now.Before(due) || !b.stale(now) {
			continue
		}
		due = time.Now().Add(retry.Jitter(gaugeRetry))
		if err := b.measure(ctx); err != nil && ctx.Err() == nil {
			b.log.Debug("the bandwidth is not measured yet", zap.Error(err))
		}
	}
	return nil
}

// recall takes the reading of an earlier start. One that was never made, or is
// torn, is made anew.
func (b *bandwidth) recall() {
	var kept reading
	if b.load(&kept) != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = kept
}

// stale reports whether it is time to measure. A clock that went back makes
// everything stale.
func (b *bandwidth) stale(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	age := now.Sub(b.known.At)
	return b.known.Bandwidth == 0 || age >= gaugeEvery || age < 0
}

// watch takes account of real traffic. It can only show that there is at least
// so much: it renews a reading that it comes near to, and raises one that it
// exceeds, but makes none.
func (b *bandwidth) watch(now time.Time) {
	rate := api.Bandwidth(8 * b.egress())
	b.mu.Lock()
	b.peak = max(b.peak, rate)
	peak, known := b.peak, b.known
	b.mu.Unlock()
	if known.Bandwidth == 0 {
		return
	}
	switch {
	case float64(peak) > 1.1*float64(known.Bandwidth):
		b.learn(rounded(peak), now, "passive")
	case float64(peak) >= passiveEnough*float64(known.Bandwidth) && b.stale(now):
		b.learn(known.Bandwidth, now, "passive")
	}
}

func (b *bandwidth) learn(found api.Bandwidth, now time.Time, how string) {
	b.mu.Lock()
	b.known, b.peak = reading{found, now}, 0
	known := b.known
	b.mu.Unlock()
	b.count.WithLabelValues(how).Inc()
	b.log.Info("bandwidth to the internet", zap.Stringer("bandwidth", found), zap.String("source", how))
	if err := b.save(known); err != nil {
		b.log.Warn("could not save the bandwidth", zap.Error(err))
	}
}

// measure asks one of the peers that are worth it.
func (b *bandwidth) measure(ctx context.Context) error {
	peers := b.peers()
	if len(peers) == 0 {
		return api.Errorf(api.KindUnavailable, "no anchor or relay is connected over the internet")
	}
	to := peers[rand.N(len(peers))]
	ctx, cancel := context.WithTimeout(ctx, gaugeTime+2*gaugeWait)
	defer cancel()
	conn, err := b.dial(ctx, to)
	if err != nil {
		b.count.WithLabelValues("failed").Inc()
		return err
	}
	defer conn.Close()
	found, err := gauge(conn)
	if err != nil {
		b.count.WithLabelValues("failed").Inc()
		return fmt.Errorf("measure bandwidth to %s: %w", to, err)
	}
	b.learn(rounded(found), time.Now(), "measured")
	return nil
}

// gauge sends as much as it can in a second and returns how fast it arrived.
func gauge(conn gaugeConn) (api.Bandwidth, error) {
	end := time.Now().Add(gaugeTime)
	_ = conn.SetDeadline(end)
	chunk := make([]byte, gaugeChunk)
	for sent := 0; sent < gaugeBytes && time.Now().Before(end); sent += len(chunk) {
		if _, err := conn.Write(chunk); err != nil {
			if time.Now().Before(end) {
				return 0, err
			}
			break // a slow uplink: the time is over while a chunk is on its way
		}
	}
	_ = conn.SetDeadline(time.Now().Add(gaugeWait))
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	var answer [tallySize]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return 0, err
	}
	return decodeTally(answer[:]).rate()
}

// tally is the answer to what a peer has sent: how many bytes arrived in how
// long, after the warm-up.
type tally struct {
	bytes uint64
	took  time.Duration
}

const tallySize = 16

func (t tally) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, t.bytes), uint64(t.took))
}

func decodeTally(b []byte) tally {
	return tally{binary.BigEndian.Uint64(b), time.Duration(binary.BigEndian.Uint64(b[8:]))}
}

// rate checks what a peer claims, and returns bits per second.
func (t tally) rate() (api.Bandwidth, error) {
	if t.bytes == 0 || t.bytes > gaugeBytes || t.took <= 0 || t.took > gaugeTime+2*gaugeWait {
		return 0, api.Errorf(api.KindUnavailable, "%d bytes in %s tell nothing", t.bytes, t.took)
	}
	return api.Bandwidth(float64(8*t.bytes) / t.took.Seconds()), nil
}

// rounded keeps two digits: the rest is noise, and a change of it would be an
// entry of the log.
func rounded(b api.Bandwidth) api.Bandwidth {
	unit := api.Bandwidth(1)
	for b/unit >= 100 {
		unit *= 10
	}
	return api.Bandwidth(math.Round(float64(b)/float64(unit))) * unit
}

// gaugeServer answers peers that measure: one at a time, each of them rarely.
type gaugeServer struct {
	mu    sync.Mutex
	busy  bool
	asked map[api.NodeID]time.Time
}

func newGaugeServer() *gaugeServer { return &gaugeServer{asked: make(map[api.NodeID]time.Time)} }

// admit reports whether a peer may measure now; done must be called after it.
func (g *gaugeServer) admit(peer api.NodeID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, at := range g.asked {
		if now.Sub(at) >= gaugeShare {
			delete(g.asked, id)
		}
	}
	if _, early := g.asked[peer]; early || g.busy {
		return false
	}
	g.busy, g.asked[peer] = true, now
	return true
}

func (g *gaugeServer) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = false
}

// serve counts what a peer sends and tells it.
func (g *gaugeServer) serve(conn gaugeConn) error {
	_ = conn.SetDeadline(time.Now().Add(gaugeTime + gaugeWait))
	buf := make([]byte, gaugeChunk)
	var whole, warm tally
	var begun, warmed, last time.Time
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			last = time.Now()
			if begun.IsZero() {
				begun = last
			}
			whole.bytes += uint64(n)
			switch {
			case !warmed.IsZero():
				warm.bytes += uint64(n)
			case whole.bytes >= gaugeWarmup:
				warmed = last
			}
		}
		if errors.Is(err, io.EOF) || whole.bytes > gaugeBytes {
			break
		}
		if err != nil {
			return fmt.Errorf("count bytes: %w", err)
		}
	}
	whole.took, warm.took = last.Sub(begun), last.Sub(warmed)
	if warm.bytes < gaugeWarmup {
		warm = whole // too slow to get warm: then the start is all there is
	}
	_, err := conn.Write(warm.encode())
	return err
}

// buildBandwidth measures to others, and lets them measure to this node.
func (d *daemon) buildBandwidth() error {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cloudless_node_bandwidth_readings_total", Help: "Readings of the bandwidth to the internet, by how they were taken.",
	}, []string{"how"})
	d.bandwidth = &bandwidth{
		operator: d.cfg.Bandwidth,
		egress:   d.mesh.EgressRate,
		peers:    d.gaugePeers,
		dial: func(ctx context.Context, to api.NodeID) (gaugeConn, error) {
			return d.mesh.Dial(ctx, to, api.ProtoGauge)
		},
		load:  func(r *reading) error { return d.dir.loadJSON(bandwidthFile, r) },
		save:  func(r reading) error { return d.dir.saveJSON(bandwidthFile, r) },
		log:   d.log.Named("bandwidth"),
		count: count,
	}
	value := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cloudless_node_bandwidth_bps", Help: "Bandwidth to the internet in bits per second, 0 while it is not known.",
	}, func() float64 { bps, _ := d.bandwidth.current(); return float64(bps) })
	d.registry.MustRegister(count, value)
	l, err := d.mesh.Listen(api.ProtoGauge, api.RoleNode)
	if err != nil {
		return err
	}
	d.parts.owner("gauge", func(ctx context.Context) error { return d.serveGauges(ctx, l) })
	d.parts.loop("bandwidth", d.bandwidth.run)
	return nil
}

// gaugePeers are the members that are well connected themselves, so that what
// is measured is this end: anchors and relays over the internet.
func (d *daemon) gaugePeers() []api.NodeID {
	var out []api.NodeID
	for _, n := range d.views.current().Nodes {
		if path, _ := d.mesh.Path(n.ID); path == api.PathDirect && (n.Inventory.Public || n.HoldsState()) {
			out = append(out, n.ID)
		}
	}
	return out
}

// serveGauges counts for peers that measure, until ctx ends.
func (d *daemon) serveGauges(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	server := newGaugeServer()
	for {
		conn, err := l.Accept()
		if err != nil {
			l.Close()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		peer, ok := conn.(p2p.Conn)
		if !ok || !server.admit(peer.Member().ID, time.Now()) {
			conn.Close()
			continue
		}
		go func() {
			defer server.done()
			defer peer.Close()
			if err := server.serve(peer); err != nil {
				d.log.Debug("a peer could not measure its bandwidth", zap.String("peer", string(peer.Member().ID)), zap.Error(err))
			}
		}()
	}
}
