package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// The bounds of the log. An entry is at most state.MaxEncoded, usually a few
// hundred bytes.
const (
	snapshotEvery    = 4096 // entries, looked at every snapshotInterval
	snapshotInterval = 2 * time.Minute
	snapshotsKept    = 2
	trailingEntries  = 4096 // kept behind a snapshot for followers that lag a little

	rpcTimeout = 5 * time.Second
	pooledConn = 3 // to each anchor
)

// Anchor is this node's share in the cluster's Raft group.
type Anchor struct {
	cfg     Config
	dir     *directory
	journal *journal
	machine *machine
	halt    *halt
	raft    *raft.Raft
	metrics *metrics

	leadership leadership
	notify     chan bool // from raft: true when this node becomes leader
	watching   sync.WaitGroup
	closing    context.Context // done once Close has begun
	beginClose context.CancelFunc
	closeOnce  sync.Once
	closeErr   error
}

// Open reads what is on disk and joins the Raft group. It refuses a directory
// that belongs to another node, is in use, is damaged or has no room. Call Run
// afterwards, or Close.
func Open(cfg Config) (_ *Anchor, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	logger := newLogger(cfg.Log)
	dir, err := openDirectory(cfg.Dir, cfg.ID)
	if err != nil {
		return nil, err
	}
	defer closeOnError(&err, dir.Close)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, logger)
	if err != nil {
		return nil, dir.explain(snapshotDir, err)
	}
	halt := newHalt()
	journal, err := openJournal(dir, logger, halt)
	if err != nil {
		return nil, err
	}
	defer closeOnError(&err, journal.Close)
	if err := verify(dir, journal, snapshots); err != nil {
		return nil, err
	}
	a := &Anchor{cfg: cfg, dir: dir, journal: journal, halt: halt, notify: make(chan bool, 8)}
	a.machine = &machine{store: state.New(), halt: halt}
	a.closing, a.beginClose = context.WithCancel(context.Background())
	if err := a.start(snapshots, logger); err != nil {
		return nil, err
	}
	return a, nil
}

// start wires raft and lets it go.
func (a *Anchor) start(snapshots raft.SnapshotStore, logger hclog.Logger) error {
	conf := raftConfig(a.cfg, a.notify, logger)
	layer := &streamLayer{id: a.cfg.ID, streams: a.cfg.Streams, closing: a.closing}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: pooledConn, Timeout: rpcTimeout, Logger: logger,
	})
	if err := a.bootstrap(conf, snapshots, transport); err != nil {
		return errors.Join(err, transport.Close())
	}
	store := raftJournal{a.journal}
	r, err := raft.NewRaft(conf, a.machine, store, store, snapshots, transport)
	if err != nil {
		return errors.Join(a.dir.explain(walDir, err), transport.Close())
	}
	a.raft = r
	a.journal.taken.Store(true)
	if a.metrics, err = newMetrics(a.cfg.Metrics, a); err != nil {
		return errors.Join(err, r.Shutdown().Error())
	}
	a.watching.Go(a.watchLeadership)
	return nil
}

func raftConfig(cfg Config, notify chan<- bool, logger hclog.Logger) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(cfg.ID)
	conf.HeartbeatTimeout, conf.ElectionTimeout = cfg.Timing.Heartbeat, cfg.Timing.Election
	conf.LeaderLeaseTimeout, conf.CommitTimeout = cfg.Timing.Lease, cfg.Timing.Commit
	conf.SnapshotThreshold, conf.SnapshotInterval, conf.TrailingLogs = snapshotEvery, snapshotInterval, trailingEntries
	conf.NotifyCh = notify
	conf.Logger = logger
	conf.NoLegacyTelemetry = true
	return conf
}

// bootstrap writes the first configuration, if it was asked for and nothing is
// there yet.
func (a *Anchor) bootstrap(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) error {
	if !a.cfg.Bootstrap {
		return nil
	}
	exists, err := raft.HasExistingState(a.journal, a.journal, snapshots)
	if err != nil {
		return a.dir.explain(walDir, err)
	}
	if exists {
		return nil
	}
	self := raft.Server{ID: raft.ServerID(a.cfg.ID), Address: raft.ServerAddress(a.cfg.ID)}
	err = raft.BootstrapCluster(conf, a.journal, a.journal, snapshots, transport, raft.Configuration{Servers: []raft.Server{self}})
	if err != nil {
		return a.dir.explain(walDir, err)
	}
	return nil
}

// Run takes part in the group until ctx ends, then hands leadership over if it
// can and closes the anchor. It returns an error when the anchor had to stop
// by itself.
func (a *Anchor) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-a.halt.halted:
		return errors.Join(a.halt.reason(), a.Close())
	}
	if a.IsLeader() {
		if servers, err := a.Servers(); err == nil && len(servers) > 1 {
			// Raft may lose sight of a transfer when its leadership ends meanwhile.
			within, cancel := context.WithTimeout(context.Background(), rpcTimeout)
			defer cancel()
			if err := a.await(within, a.raft.LeadershipTransfer()); err != nil {
				a.cfg.Log.Info("leadership was not handed over", zap.Error(err))
			}
		}
	}
	return a.Close()
}

// Close leaves the group's traffic and closes the files. It may be called
// more than once; Run calls it.
func (a *Anchor) Close() error {
	a.closeOnce.Do(func() {
		a.beginClose()
		a.closeErr = a.raft.Shutdown().Error() // closes the transport and its streams
		a.watching.Wait()
		a.metrics.unregister()
		a.closeErr = errors.Join(a.closeErr, a.journal.Close(), a.dir.Close())
	})
	return a.closeErr
}

// Store returns the replicated state as this node knows it.
func (a *Anchor) Store() *state.Store { return a.machine.store }

// Leader returns the leader as this node knows it.
func (a *Anchor) Leader() (api.NodeID, bool) {
	_, id := a.raft.LeaderWithID()
	return api.NodeID(id), id != ""
}

// IsLeader reports whether this node takes itself for the leader. Only
// VerifyLeader makes sure.
func (a *Anchor) IsLeader() bool { return a.raft.State() == raft.Leader }

// Full returns why the log takes no entries at the moment because its disk is
// full, nil while it does. It goes on by itself once there is room; a leader
// that cannot write is none, though, and an owner with other anchors does
// better to close this one meanwhile.
func (a *Anchor) Full() error {
	if err := a.journal.whyFull(); err != nil {
		return a.dir.explain(walDir, err)
	}
	return nil
}

func closeOnError(err *error, close func() error) {
	if *err != nil {
		if cerr := close(); cerr != nil {
			*err = fmt.Errorf("%w (and closing: %w)", *err, cerr)
		}
	}
}
