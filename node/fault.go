package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta"
)

// condition is how the office of a node stands that is an anchor by its
// membership.
type condition int

const (
	inOrder condition = iota // open, or this node is no anchor
	logHeld                  // closed; its log is as it was when it closed
	logLost                  // closed; its log is gone or damaged
)

// fault is why the office is closed.
type fault struct {
	condition condition
	err       error
	epoch     uint64 // of the term that ended
	applied   uint64 // by then
}

func (f *fault) problem() string {
	if f.err == nil {
		return ""
	}
	return f.err.Error()
}

func (f *fault) cleared() { *f = fault{} }

func (o *office) state() condition {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fault.condition
}

func (o *office) closed() bool { return o.state() != inOrder }

// problem says why the office is closed, "" when it is not.
func (o *office) problem() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fault.problem()
}

// vacate makes this node an ordinary one.
func (o *office) vacate() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.anchor = nil
	o.fault.cleared()
}

// errLogLost is a log that should be there.
var errLogLost = errors.New("the log is gone")

// close notes that the anchor's part has ended by itself. The node goes on as
// an ordinary one.
func (o *office) close(a *anchor, err error) {
	d := o.daemon
	f := fault{condition: logHeld, err: err, epoch: d.epoch()}
	if a != nil {
		f.epoch, f.applied = a.epoch, a.raft.Applied()
	}
	if raftmeta.Damaged(err) || errors.Is(err, errLogLost) {
		f.condition = logLost
	}
	o.mu.Lock()
	first := o.fault.condition == inOrder
	o.anchor, o.fault = nil, f
	o.mu.Unlock()
	d.admission.setAnchor(false)
	if first {
		d.log.Error("this node's part among the anchors has ended; the node itself goes on", zap.Error(err))
	}
}

// watchDisk returns an error when the log has found its disk full for a while:
// as a voter this anchor is dead then, and should not be elected.
func (a *anchor) watchDisk(ctx context.Context) error {
	const lookAtDisk = 500 * time.Millisecond
	look := time.NewTicker(lookAtDisk)
	defer look.Stop()
	for before := error(nil); ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
		now := a.raft.Full()
		if before != nil && now != nil {
			return now
		}
		before = now
	}
}

// reopen waits a while and tries to open the closed office, unless the cluster
// dismisses this node meanwhile.
func (o *office) reopen(ctx context.Context, backoff *retry.Backoff) {
	o.mu.Lock()
	f := o.fault
	o.mu.Unlock()
	pause, cancel := context.WithTimeout(ctx, f.pause(backoff.Next()))
	out := o.awaitDismissal(pause, f.epoch, func() uint64 { return f.applied })
	cancel()
	switch {
	case ctx.Err() != nil:
		return
	case out:
		o.leave(ctx)
		return
	}
	err := o.open(ctx)
	if err == nil {
		o.daemon.log.Info("this node's part among the anchors runs again")
		return
	}
	if ctx.Err() == nil {
		log := o.daemon.log.Info
		if err.Error() == f.problem() {
			log = o.daemon.log.Debug // nothing has changed since the last time
		}
		log("the part among the anchors cannot be opened yet", zap.Error(err))
		o.close(nil, err)
	}
}

// lookAgain is how long an anchor waits at most for what others do: to take its
// lost log out of their group, or to make room on its disk.
const lookAgain = 5 * time.Second

// pause returns how long to wait before the office is opened again, given how
// long it would be for any other fault.
func (f *fault) pause(usual time.Duration) time.Duration {
	if f.condition == logLost || api.KindOf(f.err) == api.KindExhausted {
		return min(usual, lookAgain)
	}
	return usual
}

// open opens what this node was when its office closed. One whose log is lost
// is enlisted anew: the leader refuses until its vote does not count any more.
func (o *office) open(ctx context.Context) error {
	d := o.daemon
	err := d.checkRaftLog()
	if err == nil {
		authority, aerr := openAuthority(d.dir)
		if aerr != nil {
			return aerr
		}
		err = o.openWith(authority, d.epoch(), false)
	}
	if !raftmeta.Damaged(err) && !errors.Is(err, errLogLost) {
		return err
	}
	o.mu.Lock()
	o.fault.condition, o.fault.err = logLost, err
	o.mu.Unlock()
	v, heard, _ := o.word()
	if self, ok := nodeOf(&v, d.self); !heard || !ok || !self.HoldsState() || v.Leader == d.self {
		return err
	}
	if eerr := o.enlist(ctx, v); eerr != nil {
		return fmt.Errorf("%w; no new log yet: %w", err, eerr)
	}
	return nil
}

// checkRaftLog refuses to begin the cluster's state anew under its old name:
// the nodes would go on with a cluster that has forgotten them.
func (d *daemon) checkRaftLog() error {
	entries, err := fs.ReadDir(d.dir.FS(), raftDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the Raft log: %w", err)
	}
	if d.member.Founded && len(entries) == 0 {
		return api.Errorf(api.KindInternal, "%w: %s is empty, and the state of cluster %s was there", errLogLost, d.dir.join(raftDir), d.member.Name).
			WithHint("restore a backup, or a snapshot that another node keeps, with: cloudless anchor restore; or empty the data directory to found another cluster")
	}
	return nil
}

// onlyAnchor reports whether this node knows of no other anchor.
func (d *daemon) onlyAnchor() bool {
	for _, n := range d.views.current().Nodes {
		if n.HoldsState() && n.ID != d.self {
			return false
		}
	}
	return len(d.knownAnchors()) == 0
}

// officeMetrics are the figures of a node's place among the anchors, open or not.
type officeMetrics struct {
	halted    prometheus.GaugeFunc
	keepers   prometheus.Gauge
	handedOut prometheus.Gauge
}

func newOfficeMetrics(o *office) officeMetrics {
	return officeMetrics{
		halted: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cloudless_node_anchor_halted",
			Help: "1 while this node is an anchor whose part does not run; see cloudless anchor list.",
		}, func() float64 {
			if o.closed() {
				return 1
			}
			return 0
		}),
		keepers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cloudless_node_snapshot_keepers",
			Help: "Ordinary nodes that keep the last sealed snapshot that this node handed out as the leader.",
		}),
		handedOut: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cloudless_node_snapshot_timestamp_seconds",
			Help: "When this node last handed out a sealed snapshot as the leader, 0 for never.",
		}),
	}
}

func (m officeMetrics) register(r prometheus.Registerer) {
	r.MustRegister(m.halted, m.keepers, m.handedOut)
}

// handedOut notes how many nodes keep a new snapshot.
func (o *office) handedOut(to int, now time.Time) {
	o.metrics.keepers.Set(float64(to))
	if to > 0 {
		o.metrics.handedOut.Set(float64(now.Unix()))
	}
}
