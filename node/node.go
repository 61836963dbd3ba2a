package node

import (
	"context"
	"crypto/ed25519"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

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

	memberMu sync.Mutex
	member   *membership

	admission *admission
	views     *viewCache
	mesh      *p2p.Mesh
	server    *control.Server
	network   *svcnet.Network // nil without the privileges for it
	worker    *worker         // nil without workloads
	anchor    *anchor         // nil on ordinary nodes

	inventoryMu sync.Mutex
	inventory   api.Inventory

	tasks []task // what run runs, in the order of building
}

// task is a part's Run, with the name that a failure is logged under.
type task struct {
	name string
	run  func(context.Context) error
}

func (d *daemon) add(name string, run func(context.Context) error) {
	d.tasks = append(d.tasks, task{name, run})
}

// build makes every part. What it made is closed again by run only, so it
// comes last to do what can fail for reasons of the outside world.
func build(ctx context.Context, cfg Config, dir *dataDir, key ed25519.PrivateKey, m *membership, log *zap.Logger) (*daemon, error) {
	d := &daemon{
		cfg:         cfg,
		dir:         dir,
		key:         key,
		self:        identity.NodeID(key.Public().(ed25519.PublicKey)),
		incarnation: uint64(time.Now().UnixNano()),
		registry:    newRegistry(),
		member:      m,
	}
	d.log = log.With(zap.String("node", cfg.Name))
	d.views = openView(dir, d.log.Named("view"))
	var err error
	if d.inventory, err = takeInventory(ctx, &cfg); err != nil {
		return nil, err
	}
	if err := d.buildMesh(); err != nil {
		return nil, err
	}
	if m.Anchor {
		if err := d.buildAnchor(); err != nil {
			return nil, err
		}
	}
	if missing := missingPrivileges(); missing == "" {
		if err := d.buildNetwork(); err != nil {
			return nil, err
		}
	} else {
		d.log.Info("services have no virtual IPs and names on this host", zap.String("reason", missing))
	}
	if !cfg.NoWorkloads {
		if err := d.buildWorker(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.buildServer(); err != nil {
		return nil, err
	}
	return d, d.buildLoops()
}

func (d *daemon) buildMesh() error {
	ca, err := identity.ParseCA(d.member.CA, d.member.Cluster)
	if err != nil {
		return err
	}
	if d.admission, err = newAdmission(ca, d.member.Certificate); err != nil {
		return err
	}
	d.admission.learn(d.views.current().Revocations)
	d.mesh, err = p2p.New(p2p.Config{
		Key:       d.key,
		Listen:    d.cfg.Listen,
		Announce:  d.cfg.Announce,
		Public:    d.cfg.Public,
		Cluster:   d.member.Cluster,
		Admission: d.admission,
		Contacts:  d.contacts(d.views.current()),
		Log:       d.log.Named("mesh"),
		Metrics:   d.registry,
	})
	if err != nil {
		return err
	}
	d.add("mesh", d.mesh.Run)
	return nil
}

func (d *daemon) buildServer() error {
	cfg := control.Config{
		Self:     d.admission.self(),
		Version:  api.Version(d.cfg.Version),
		Mesh:     d.mesh,
		Dial:     func(ctx context.Context, to api.NodeID) (net.Conn, error) { return d.mesh.Dial(ctx, to, api.ProtoAPI) },
		Leader:   d.leader,
		View:     d.views.current,
		Status:   d.status,
		LastSeen: func(api.NodeID) time.Time { return time.Time{} },
		Log:      d.log.Named("api"),
		Metrics:  d.registry,
	}
	if d.worker != nil {
		cfg.Runtime, cfg.Images = d.worker.runtime, d.worker.images
	}
	if d.anchor != nil {
		d.anchor.serve(&cfg)
	}
	var err error
	if d.server, err = control.New(cfg); err != nil {
		return err
	}
	listeners, err := d.listen()
	if err != nil {
		return err
	}
	d.add("api", func(ctx context.Context) error { return d.server.Run(ctx, listeners...) })
	return nil
}

// listen opens the places where the API is served.
func (d *daemon) listen() ([]net.Listener, error) {
	local, err := listenUnix(d.cfg.Socket)
	if err != nil {
		return nil, err
	}
	mesh, err := d.mesh.Listen(api.ProtoAPI, api.RoleNode, api.RoleOperator, api.RoleViewer)
	if err != nil {
		return nil, err
	}
	listeners := []net.Listener{local, mesh}
	if d.cfg.APIListen != "" {
		l, err := listenTLS(d.cfg.APIListen, d.admission, d.key)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// listenUnix opens the local socket; whoever may open it operates the cluster.
// A leftover of a killed daemon is replaced: the data directory's lock says
// that none runs.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, api.Invalid("--socket", "cannot create its directory: %v", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, api.Errorf(api.KindConflict, "another daemon answers at %s", path).WithHint("give this one its own --socket")
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, api.Invalid("--socket", "%v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, api.Invalid("--socket", "%v", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, api.Invalid("--socket", "%v", err)
	}
	return l, nil
}

func (d *daemon) buildLoops() error {
	s := &syncer{
		self:        d.self,
		incarnation: d.incarnation,
		conn:        d.server.Conn,
		redial:      d.server.Redial,
		candidates: func() []api.NodeID {
			return anchorsOf(d.views.current(), d.knownAnchors(), d.self, d.anchor != nil)
		},
		report:  d.report,
		receive: d.receive,
		log:     d.log.Named("sync"),
	}
	d.add("sync", s.run)
	d.add("follow", d.follow)
	d.add("heartbeat", func(ctx context.Context) error {
		nodes := func() int { return len(d.views.current().Nodes) }
		return pulse(ctx, d.mesh, d.incarnation, nodes, d.log.Named("heartbeat"))
	})
	d.add("certificate", d.renewCertificates)
	if d.cfg.MetricsListen != "" {
		serve, err := metricsServer(d.cfg.MetricsListen, d.registry, d.admission, d.key)
		if err != nil {
			return err
		}
		d.add("metrics", serve)
	}
	return nil
}

// run runs every part until ctx ends or one of them fails.
func (d *daemon) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range d.tasks {
		group.Go(func() error {
			err := t.run(ctx)
			if err != nil && ctx.Err() == nil {
				d.log.Error("a part of the daemon failed", zap.String("part", t.name), zap.Error(err))
			}
			return err
		})
	}
	d.log.Info("started", zap.String("id", string(d.self)), zap.String("cluster", d.member.Name), zap.String("socket", d.cfg.Socket))
	err := group.Wait()
	notifySystemd("STOPPING=1")
	d.log.Info("stopped")
	return err
}
