package blockstore

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// Protocol is what bitswap speaks on the mesh.
const Protocol = "/cloudless/ipfs/bitswap/1.2.0"

// Config says what an Exchange works with. Fields without a default are
// required.
type Config struct {
	// Host carries the protocol. It must let strangers reach no handler; the
	// exchange checks Allowed for every message all the same.
	Host host.Host
	// Content is where blobs are read from to be served.
	Content Content
	// Allowed says whether a node is a member that may be served and asked.
	Allowed func(api.NodeID) bool

	// Connect brings up a connection to a node; the exchange then waits for
	// Allowed to accept it. Default: Host.Connect with the peerstore's addresses.
	Connect func(context.Context, api.NodeID) error
	// Rank orders the holders of a blob, lowest first, e.g. 0 for one on the
	// LAN, 1 for a direct path, 2 for a relayed one. Default: all equal.
	Rank func(api.NodeID) int
	// Providers names the nodes that now hold a blob (by digest); it is asked
	// when those given to Fetch do not deliver. It must not block. Default: none.
	Providers func(digest string) []api.NodeID
	// Corrupt is told, once, that a local blob does not have the content it
	// should and is no longer served. It must not block. Default: only logged.
	Corrupt func(digest string)

	// MaxInFlight bounds the leaves (1 MiB each) that all fetches together have
	// requested or keep until their turn to be written. Default 24.
	MaxInFlight int
	// MaxServing bounds the leaves (1 MiB each) being sent at one time to all
	// nodes together. Default 16.
	MaxServing int
	// Patience is how long a fetch makes no progress before one more holder is
	// asked. Default 1s.
	Patience time.Duration
	// Stall is how long a fetch makes no progress before it fails. Default 30s.
	Stall time.Duration
	// Quarantine is how long a node that sent wrong content is not asked again.
	// Default 10m.
	Quarantine time.Duration

	// Log takes what goes wrong and is not returned. Default: none.
	Log *zap.Logger
	// Metrics takes the collectors cloudless_blockstore_…. Default: none.
	Metrics prometheus.Registerer
}

// BlobReader reads one blob.
type BlobReader = interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Content is the local store of blobs, by digest ("sha256:…").
type Content interface {
	HasBlob(ctx context.Context, digest string) (bool, error)
	OpenBlob(ctx context.Context, digest string) (BlobReader, error)
}

func (c *Config) setDefaults() {
	if c.Connect == nil {
		c.Connect = func(ctx context.Context, id api.NodeID) error {
			p, err := peer.Decode(string(id))
			if err != nil {
				return err
			}
			return c.Host.Connect(ctx, peer.AddrInfo{ID: p})
		}
	}
	if c.Rank == nil {
		c.Rank = func(api.NodeID) int { return 0 }
	}
	if c.Providers == nil {
		c.Providers = func(string) []api.NodeID { return nil }
	}
	if c.Corrupt == nil {
		c.Corrupt = func(string) {}
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 24
	}
	if c.MaxServing <= 0 {
		c.MaxServing = 16
	}
	if c.Patience <= 0 {
		c.Patience = time.Second
	}
	if c.Stall <= 0 {
		c.Stall = 30 * time.Second
	}
	if c.Quarantine <= 0 {
		c.Quarantine = 10 * time.Minute
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
}

// Exchange serves the leaves of local blobs and fetches those of others. Its
// methods may be called from any goroutine.
type Exchange struct {
	cfg     Config
	metrics *metrics
	index   *index
	permits chan struct{} // one for each leaf in flight

	net    network.BitSwapNetwork
	client *client.Client
	server *server.Server
	gate   *gate
	ctx    context.Context // ends when the exchange is closed
	cancel context.CancelFunc
}

// New wires an exchange to its host, where it serves and can fetch from now
// on. Run must follow: it closes what New opened.
func New(cfg Config) (*Exchange, error) {
	if cfg.Host == nil || cfg.Content == nil || cfg.Allowed == nil {
		return nil, errors.New("new block exchange: Host, Content and Allowed are required")
	}
	cfg.setDefaults()
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	x := &Exchange{
		cfg:     cfg,
		metrics: m,
		index:   newIndex(),
		permits: make(chan struct{}, cfg.MaxInFlight),
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	store := &view{index: x.index, content: cfg.Content, metrics: m, failed: x.unreadable}
	x.net = bsnet.NewFromIpfsHost(cfg.Host,
		bsnet.Prefix("/cloudless"), bsnet.SupportedProtocols([]protocol.ID{bsnet.ProtocolBitswap}))
	x.server = newServer(x.ctx, x.net, store, cfg)
	x.client = newClient(x.ctx, x.net, store, x.server)
	x.gate = newGate(x.client, x.server, cfg, m)
	x.net.Start(x.gate)
	return x, nil
}

// newServer sizes bitswap's serving side. The worker counts bound its memory:
// a worker that sends holds a leaf and its encoded message (up to 3 MiB), one
// of the engine at most the leaf that comes next. The defaults of bitswap (1
// MiB outstanding to a peer) leave a path with a long round trip mostly idle.
// Each leaf has a stream of its own: over TCP the initial window of a stream
// decides how many round trips it takes, so the mesh should have one of 1 MiB.
func newServer(ctx context.Context, net network.BitSwapNetwork, store *view, cfg Config) *server.Server {
	return server.New(ctx, net, store,
		server.TaskWorkerCount(cfg.MaxServing),
		server.EngineTaskWorkerCount(max(cfg.MaxServing/2, 1)),
		server.EngineBlockstoreWorkerCount(4), // the index answers from memory; reads run in the engine's workers
		server.MaxOutstandingBytesPerPeer(cfg.MaxServing*api.BlobLeafSize),
		server.MaxQueuedWantlistEntriesPerPeer(1024),
		server.MaxCidSize(64),
		server.WithWantHaveReplaceSize(4<<10), // manifests and configs come with the first answer
		server.WithPeerBlockRequestFilter(func(p peer.ID, _ cid.Cid) bool {
			return cfg.Allowed(api.NodeID(p.String()))
		}),
	)
}

// newClient builds bitswap's asking side. Its timeouts guess that a peer will
// not answer; a guess that comes too early on a slow uplink makes leaves travel
// twice, and one that comes late costs nothing, because a fetch without
// progress asks further holders by itself.
func newClient(ctx context.Context, net network.BitSwapNetwork, store *view, srv *server.Server) *client.Client {
	timeouts := client.DefaultDontHaveTimeoutConfig()
	timeouts.DontHaveTimeout = 10 * time.Second
	timeouts.MinTimeout = 5 * time.Second
	timeouts.MaxTimeout = 20 * time.Second
	timeouts.MessageLatencyMultiplier = 4
	return client.New(ctx, net, nil, store,
		client.WithDontHaveTimeoutConfig(timeouts),
		client.WithoutDuplicatedBlockStats(),
		client.WithBlockReceivedNotifier(srv),
	)
}

// Run blocks until ctx ends, then stops serving and closes the exchange.
func (x *Exchange) Run(ctx context.Context) error {
	<-ctx.Done()
	x.cfg.Host.RemoveStreamHandler(Protocol)
	x.net.Stop()
	x.gate.close()
	x.cancel() // ends the fetches
	err := x.client.Close()
	x.server.Close()
	return err
}

// Provide makes the leaves of blobs that Content holds available to other
// nodes. It reads nothing; providing a blob twice is harmless. All or none.
func (x *Exchange) Provide(blobs []api.Blob) error {
	parsed := make([]*provided, len(blobs))
	for i, b := range blobs {
		p, err := parse(b)
		if err != nil {
			return err
		}
		parsed[i] = p
	}
	for _, p := range parsed {
		x.index.add(p)
	}
	x.metrics.provided.Set(float64(x.index.len()))
	return nil
}

// Withdraw stops serving blobs, known by digest. Leaves that a blob shares with
// another one stay available.
func (x *Exchange) Withdraw(digests []string) {
	for _, d := range digests {
		x.index.remove(d)
	}
	x.metrics.provided.Set(float64(x.index.len()))
}

// unreadable handles a leaf that could not be served. Wrong content is told to
// the node, once; a blob that is gone is withdrawn; anything else (a content
// store that restarts) may pass.
func (x *Exchange) unreadable(digest string, err error) {
	corrupt := errors.Is(err, errCorrupt)
	if !corrupt && api.KindOf(err) != api.KindNotFound {
		x.cfg.Log.Warn("cannot serve blob", zap.String("blob", digest), zap.Error(err))
		return
	}
	if !x.index.remove(digest) {
		return
	}
	x.metrics.provided.Set(float64(x.index.len()))
	if !corrupt {
		x.cfg.Log.Warn("blob is gone and no longer served", zap.String("blob", digest))
		return
	}
	x.metrics.corrupt.Inc()
	x.cfg.Log.Error("local blob is corrupt and no longer served", zap.String("blob", digest), zap.Error(err))
	x.cfg.Corrupt(digest)
}
