package p2p

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/cloudless-project/cloudless/api"
)

// Mesh is this device's place in the mesh. Its methods may be called
// concurrently, from New until Run returns.
type Mesh struct {
	cfg     Config
	log     *zap.Logger
	metrics *meshMetrics
	counter *metrics.BandwidthCounter
	host    basicHost
	gated   *gatedHost
	gate    *gater
	told    addrsFilter

	instance uint64         // of this daemon, drawn when it starts; not 0
	complain rate.Sometimes // about clocks

	adm      *admissions
	contacts *contacts
	keeper   *keeper
	topics   *topics
	records  *recordBook
	passing  *rate.Limiter // of records of others
	meeting  *rate.Limiter // whoever answers in the place of an anchor
	finder   *finder       // nil for a client
	enrol    *enrolServer
	reach    reach
	subnets  subnets
	askers   askers
	pulses   *pulses
	outside  *outside
	ports    portMapper

	interfaces *interfaces
	tell       chan struct{}     // this device's record may have changed
	newer      chan network.Conn // of peers that hold records that are newer

	reserver  *reserver // nil for a client, and for who is public
	puncher   *holepunch.Service
	relayMu   sync.Mutex
	relay     *relay.Relay
	limit     *shares     // of what relay carries; nil without a limit
	carried   *relayMeter // by this device for others
	viaRelays *relayMeter // by others for this device
	bundles   *bundles

	protoMu sync.Mutex
	claimed map[protocol.ID]bool

	collectors []prometheus.Collector
	notifiee   network.Notifiee

	ctx    context.Context // ends when Run does
	cancel context.CancelFunc
	wg     sync.WaitGroup
	stopMu sync.RWMutex // held for reading while wg grows
}

// New starts to listen and returns the mesh. Run must be called, also to close
// it again.
func New(cfg Config) (*Mesh, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make mesh: %w", err)
	}
	m := &Mesh{
		cfg: cfg, log: cfg.Log, metrics: newMetrics(), counter: metrics.NewBandwidthCounter(),
		instance: rand.Uint64() | 1, complain: rate.Sometimes{Interval: complainEvery},
		adm: newAdmissions(), claimed: make(map[protocol.ID]bool), pulses: newPulses(), outside: newOutside(),
		interfaces: newInterfaces(), tell: make(chan struct{}, 1), newer: make(chan network.Conn, pullServing),
		carried: newRelayMeter(), viaRelays: newRelayMeter(), bundles: newBundles(),
	}
	told, err := newAddrsFilter(cfg)
	if err != nil {
		return nil, fmt.Errorf("make mesh: %w", err)
	}
	m.told = func(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
		return told(m.interfaces.correct(slices.Concat(m.outside.correct(addrs), m.outside.announced(), m.ports.mapped())))
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	// A public device knows its port, and nobody punches to it.
	seen := func(p peer.ID) bool { return cfg.Public != PublicYes && m.contacts.important(p) }
	m.gate = &gater{m: m}
	if m.host, err = newHost(cfg, m.gate, m.counter, m.told, &m.ports, seen); err != nil {
		m.cancel()
		return nil, fmt.Errorf("make mesh: %w", err)
	}
	m.gated = &gatedHost{basicHost: m.host, m: m}
	m.contacts, m.records, m.passing = newContacts(m.host.ID(), cfg.Contacts), newRecordBook(), rate.NewLimiter(rate.Every(passPause), passBurst)
	m.meeting = rate.NewLimiter(rate.Every(meetPause), meetBurst)
	m.keeper = newKeeper(m)
	m.enrol = newEnrolServer(m)
	if err := m.wire(m.gate); err != nil {
		m.close()
		return nil, fmt.Errorf("make mesh: %w", err)
	}
	return m, nil
}

// wire puts the parts on the host, in the order in which they need each other.
func (m *Mesh) wire(gater *gater) error {
	m.notifiee = &network.NotifyBundle{ConnectedF: m.connected, DisconnectedF: m.disconnected}
	m.host.Network().Notify(m.notifiee)
	m.claim(api.ProtoHello)
	m.host.SetStreamHandler(api.ProtoHello, m.handleHello)
	m.serveProbe()
	m.claim(protoBundle)
	m.host.SetStreamHandler(protoBundle, m.guard(protoBundle, nil, m.serveBundle))
	var err error
	if m.topics, err = newTopics(m.ctx, m); err != nil {
		return err
	}
	m.topics.setAnchors(m.contacts.anchors())
	if err := m.registerMetrics(m.cfg.Metrics); err != nil {
		return err
	}
	if err := m.useRelays(gater); err != nil {
		return err
	}
	if m.cfg.Client {
		return nil
	}
	m.recall(m.cfg.Records)
	m.serveRecords()
	if err := m.hearRecords(); err != nil {
		return err
	}
	if m.finder, err = newFinder(m); err != nil {
		return err
	}
	if m.cfg.Public == PublicYes {
		if err := m.startRelay(); err != nil {
			return err
		}
	} else if err := m.usePunching(); err != nil {
		return err
	}
	return m.checkListening()
}

// checkListening makes sure that both transports listen: libp2p is content
// with one, and a port that is taken would go unnoticed.
func (m *Mesh) checkListening() error {
	have := make(map[string]bool)
	for _, a := range m.host.Network().ListenAddresses() {
		have[transportOf(a)] = true
	}
	for _, text := range m.cfg.Listen {
		a, err := multiaddr.NewMultiaddr(text)
		if err == nil && !have[transportOf(a)] {
			return api.Errorf(api.KindUnavailable, "cannot listen on %s", text).
				WithHint("another program may use the port: choose another one with --listen")
		}
	}
	return nil
}

// Run keeps the mesh going until ctx ends, then says goodbye and closes
// everything.
func (m *Mesh) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, m.keeper.wake)
	defer stop()
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	var jobs sync.WaitGroup
	var failed error
	var once sync.Once
	vital := func(job func(context.Context) error) {
		jobs.Go(func() {
			if err := job(run); err != nil {
				once.Do(func() { failed = err })
				cancel()
			}
		})
	}
	jobs.Go(func() { m.refreshAll(run) })
	jobs.Go(func() { m.probeAll(run) })
	if !m.cfg.Client {
		jobs.Go(func() { m.keeper.run(run) })
		jobs.Go(func() { m.watchPaths(run) })
		jobs.Go(func() { m.watchRelays(run) })
		jobs.Go(func() { m.watchOutside(run) })
		jobs.Go(func() { m.watchInterfaces(run) })
		jobs.Go(func() { m.tellRecord(run) })
		jobs.Go(func() { m.pullRecords(run) })
		jobs.Go(func() { m.pullBack(run) })
		vital(m.watchReach)
		if m.reserver != nil {
			vital(m.reserver.run)
		}
		if !m.cfg.NoLAN {
			l := &lan{m: m, seen: make(chan peer.AddrInfo, maxLANPeers)}
			jobs.Go(func() { l.run(run) })
		}
	}
	<-run.Done()
	m.goodbye()
	m.close()
	jobs.Wait()
	return failed
}

func (m *Mesh) refreshAll(ctx context.Context) {
	tick := time.NewTicker(m.cfg.RefreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.refresh()
		case <-ctx.Done():
			return
		}
	}
}

// close ends every part, the ones on top first.
func (m *Mesh) close() {
	m.stopMu.Lock()
	m.cancel()
	m.stopMu.Unlock()
	if m.puncher != nil {
		_ = m.puncher.Close()
	}
	m.stopRelay()
	m.finder.close()
	if m.notifiee != nil {
		m.host.Network().StopNotify(m.notifiee)
	}
	if err := m.host.Close(); err != nil {
		m.log.Warn("could not close the host", zap.Error(err))
	}
	m.wg.Wait()
	m.unregisterMetrics()
}

// spawn runs f in a goroutine that close waits for.
func (m *Mesh) spawn(f func()) {
	m.stopMu.RLock()
	defer m.stopMu.RUnlock()
	if m.ctx.Err() == nil {
		m.wg.Go(f)
	}
}

func (m *Mesh) connected(_ network.Network, c network.Conn) {
	m.track(c.RemotePeer())
	m.spawn(func() { m.greet(c) })
	m.doubtOlder(c)
	if isRelayed(c.RemoteMultiaddr()) {
		m.keeper.wake()
	}
}

func (m *Mesh) disconnected(_ network.Network, c network.Conn) {
	m.dropInstance(c)
	m.forget(c.RemotePeer())
	if !isRelayed(c.RemoteMultiaddr()) {
		m.reserver.doubt(c.RemotePeer())
	}
	if m.contacts.has(c.RemotePeer()) {
		m.keeper.wake()
	}
}

// ID returns this device's PeerID.
func (m *Mesh) ID() api.NodeID { return api.NodeID(m.host.ID().String()) }

// Host returns the libp2p host for protocols built on it, such as bitswap. Its
// handlers and streams are for admitted members only.
func (m *Mesh) Host() host.Host { return m.gated }

// claim reserves a protocol; two parts must not serve the same.
func (m *Mesh) claim(id protocol.ID) bool {
	m.protoMu.Lock()
	defer m.protoMu.Unlock()
	if m.claimed[id] {
		return false
	}
	m.claimed[id] = true
	return true
}

func (m *Mesh) release(id protocol.ID) {
	m.protoMu.Lock()
	defer m.protoMu.Unlock()
	delete(m.claimed, id)
}
