package node

import (
	"context"
	"crypto/ed25519"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/node/control"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
	"github.com/cloudless-project/cloudless/svcnet"
)

// Run is the daemon. It returns nil after ctx ended and everything was closed;
// the containers go on running.
func Run(ctx context.Context, cfg Config, log *zap.Logger) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	if err := checkPrivileges(&cfg); err != nil {
		return err
	}
	dir, err := openDataDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	key, err := identity.LoadOrCreateKey(dir.Root, keyFile)
	if err != nil {
		return err
	}
	m, err := become(ctx, &cfg, dir, key, log)
	if err != nil {
		return err
	}
	n, err := build(ctx, cfg, dir, key, m, log)
	if err != nil {
		return err
	}
	return n.run(ctx)
}

// daemon is a node's parts, wired to each other.
type daemon struct {
	cfg         Config
	dir         *dataDir
	key         ed25519.PrivateKey
	self        api.NodeID
	incarnation uint64
	log         *zap.Logger
	registry    *prometheus.Registry
	inventory   api.Inventory // what does not change while the daemon runs
	power       powerMeter
	bandwidth   *bandwidth

	memberMu sync.Mutex
	member   *membership

	admission *admission
	twins     *twins
	views     *viewCache
	mesh      *p2p.Mesh
	server    *control.Server
	network   *svcnet.Network // nil without the privileges for it
	tableMu   sync.Mutex      // held while the network's table is replaced
	worker    *worker         // nil without workloads
	office    *office
	herald    *herald
	lease     *lease
	errands   errands
	admitted  chan api.NodeID // nodes that were admitted just now

	parts lifecycle
}

// build makes every part, those that others stand on first. When one fails,
// those before it are closed again.
func build(ctx context.Context, cfg Config, dir *dataDir, key ed25519.PrivateKey, m *membership, log *zap.Logger) (_ *daemon, err error) {
	d := &daemon{
		cfg:      cfg,
		dir:      dir,
		key:      key,
		self:     identity.NodeID(key.Public().(ed25519.PublicKey)),
		log:      log.With(zap.String("node", cfg.Name)),
		registry: newRegistry(),
		member:   m,
		herald:   newHerald(),
		lease:    &lease{},
		errands:  newErrands(),
		admitted: make(chan api.NodeID, 256),
	}
	defer func() {
		if err != nil {
			d.parts.abandon(d.log)
		}
	}()
	if d.incarnation, err = nextIncarnation(dir, time.Now()); err != nil {
		return nil, err
	}
	if d.inventory, err = takeInventory(ctx, &cfg); err != nil {
		return nil, err
	}
	d.views = openView(d.self, dir, d.log.Named("view"))
	d.parts.loop("view", d.views.run)
	steps := []func() error{
		func() error { return d.buildRuntime(ctx) },
		d.buildMesh,
		d.buildBandwidth,
		d.buildOffice,
		d.buildNetwork,
		func() error { return d.buildWorker(ctx) },
		d.buildServer,
		d.buildMetrics,
		d.buildLoops,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *daemon) buildMesh() error {
	ca, err := identity.ParseCA(d.member.CA, d.member.Cluster)
	if err != nil {
		return err
	}
	if d.admission, err = newAdmission(ca, d.self, d.member.Certificate, d.member.Anchor, time.Now); err != nil {
		return err
	}
	d.twins = newTwins(d.admission, d.dir.path, d.log)
	d.registerCertificateMetrics()
	d.recallAnchors()
	if v, known := d.views.get(); known {
		if err := d.admission.follow(v.Cluster, len(v.Nodes)); err != nil {
			d.log.Warn("the authorities in the cached cluster view are not the cluster's; waiting for an anchor", zap.Error(err))
		}
	}
	d.admission.revoked.learn(d.views.current().Revocations)
	if err := d.admission.removed(); err != nil {
		d.logRemoved(err)
	}
	d.mesh, err = p2p.New(p2p.Config{
		Key:        d.key,
		Listen:     d.cfg.Listen,
		Announce:   d.cfg.Announce,
		Public:     d.cfg.Public,
		RelayLimit: uint64(d.cfg.RelayLimit),
		Cluster:    d.member.Cluster,
		Admission:  d.admission,
		Contacts:   d.contacts(d.views.current()),
		Records:    loadRecords(d.dir, d.log.Named("mesh")),
		Farewell:   farewell{d},
		Twins:      d.twins,
		Admitted:   d.noteAdmitted,
		NoLAN:      d.cfg.isolated,
		NoPortMap:  d.cfg.isolated,
		Log:        d.log.Named("mesh"),
		Metrics:    d.registry,
	})
	if err != nil {
		return err
	}
	d.parts.owner("mesh", d.mesh.Run)
	d.parts.loop("errands", d.errands.run)
	d.parts.loop("member records", func(ctx context.Context) error { return keepRecords(ctx, d.dir, d.mesh, d.log.Named("mesh")) })
	// The heartbeat ends just before the mesh says goodbye: whatever else takes
	// its time to end, nobody takes this node for dead meanwhile.
	d.parts.loop("heartbeat", func(ctx context.Context) error {
		nodes := func() int { return len(d.views.current().Nodes) }
		return pulse(ctx, d.mesh, d.incarnation, nodes, d.log.Named("heartbeat"))
	})
	return nil
}

func (d *daemon) buildServer() error {
	cfg := control.Config{
		Self:     d.admission.self(),
		Version:  api.Version(d.cfg.Version),
		Mesh:     d.mesh,
		Dial:     func(ctx context.Context, to api.NodeID) (net.Conn, error) { return d.mesh.Dial(ctx, to, api.ProtoAPI) },
		Standing: d.standing,
		Removed:  d.admission.removed,
		Leader:   d.leader,

		Duplicated: d.twins.duplicated,

		View:     d.views.current,
		InStep:   d.admission.lastAnchor,
		Status:   d.status,
		Diagnose: d.diagnose,
		Log:      d.log.Named("api"),
		Metrics:  d.registry,
	}
	if d.worker != nil {
		cfg.Runtime, cfg.Images = d.worker.runtime, d.worker.images
	}
	d.office.serve(&cfg)
	var err error
	if d.server, err = control.New(cfg); err != nil {
		return err
	}
	listeners, err := d.listen()
	if err != nil {
		return err
	}
	d.parts.owner("api", func(ctx context.Context) error { return d.server.Run(ctx, listeners...) })
	return nil
}

// listen opens the places where the API is served: all or none.
func (d *daemon) listen() (opened []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
			opened = nil
		}
	}()
	local, err := listenUnix(d.cfg.Socket)
	if err != nil {
		return opened, err
	}
	opened = append(opened, local)
	mesh, err := d.mesh.Listen(api.ProtoAPI, api.RoleNode, api.RoleOperator, api.RoleViewer)
	if err != nil {
		return opened, err
	}
	opened = append(opened, mesh)
	if d.cfg.APIListen != "" {
		l, err := listenTLS(d.cfg.APIListen, d.admission, d.key)
		if err != nil {
			return opened, err
		}
		opened = append(opened, l)
	}
	return opened, nil
}

func (d *daemon) buildMetrics() error {
	if d.cfg.MetricsListen == "" {
		return nil
	}
	serve, err := metricsServer(d.cfg.MetricsListen, d.registry, d.admission, d.key)
	if err != nil {
		return err
	}
	d.parts.owner("metrics", serve)
	return nil
}

func (d *daemon) buildLoops() error {
	s := &syncer{
		self:   d.self,
		conn:   d.server.Conn,
		redial: d.server.Redial,
		candidates: func() []api.NodeID {
			if d.admission.removed() != nil {
				return nil
			}
			leader, _ := d.herald.watch()
			return anchorsOf(leader, d.views.current(), d.knownAnchors(), d.self, d.office.current() != nil)
		},
		leader:  d.herald.watch,
		report:  d.report,
		receive: d.receive,
		alive:   d.admission.sawAnchor,
		log:     d.log.Named("sync"),
	}
	d.parts.loop("sync", s.run)
	d.parts.loop("leader", d.hearLeaders)
	d.parts.loop("lease", d.keepLease)
	d.parts.loop("revocations", d.exchangeRevocations)
	d.parts.loop("follow", d.follow)
	d.parts.loop("certificate", d.renewCertificates)
	d.parts.loop("authority", d.followAuthority)
	d.parts.loop("anchor-seen", d.rememberAnchors)
	return nil
}

// run runs every part until ctx ends or one of them fails.
func (d *daemon) run(ctx context.Context) error {
	d.log.Info("started", zap.String("id", string(d.self)), zap.String("cluster", d.member.Name), zap.String("socket", d.cfg.Socket))
	err := d.parts.run(ctx, d.log, func() { notifySystemd("STOPPING=1") })
	d.log.Info("stopped")
	return err
}
