package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/internal/retry"
)

// syncer keeps this node in step with the leading anchor: it reports what the
// node has and does, and hands on the view it gets back.
type syncer struct {
	self api.NodeID

	conn       func(api.NodeID) (*grpc.ClientConn, error)
	redial     func(api.NodeID)
	candidates func() []api.NodeID // anchors, the likely leader first
	report     func() (r api.NodeReport, changed <-chan struct{})
	leader     func() (api.NodeID, <-chan struct{}) // as far as this node heard; closed when it is another one
	receive    func(from api.NodeID, v api.ClusterView) error
	alive      func() // is called now and then while an anchor answers
	log        *zap.Logger
}

// pollInventory is how often facts are looked at that announce no change
// themselves: addresses, the kind of NAT.
const pollInventory = 2 * time.Second

// settle is how long a change waits for others to be reported with it.
const settle = 5 * time.Millisecond

// firstView bounds how long an anchor may take to answer the first report; one
// that is slower is given up for another.
const firstView = 10 * time.Second

// complainEvery is how often the log says that there is no anchor.
const complainEvery = 5 * time.Minute

// run tries the anchors in turn until ctx ends.
func (s *syncer) run(ctx context.Context) error {
	backoff := retry.Backoff{Initial: 200 * time.Millisecond, Max: 2 * time.Second}
	var complained time.Time
	for ctx.Err() == nil {
		for _, anchor := range s.candidates() {
			worked, err := s.session(ctx, anchor)
			if ctx.Err() != nil {
				return nil
			}
			if worked {
				backoff.Reset()
			}
			log := s.log.Debug
			if worked || time.Since(complained) > complainEvery {
				log, complained = s.log.Info, time.Now()
			}
			log("not in sync with an anchor", zap.String("peer", string(anchor)), zap.Error(err))
			s.redial(anchor)
		}
		if retry.Sleep(ctx, backoff.Next()) != nil {
			return nil
		}
	}
	return nil
}

// session syncs with one anchor until it or the way to it fails. It tells
// whether anything was received.
func (s *syncer) session(ctx context.Context, anchor api.NodeID) (worked bool, err error) {
	conn, err := s.conn(anchor)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stream, err := pb.NewSyncServiceClient(conn).Sync(ctx)
	if err != nil {
		cancel(nil)
		return false, wire.ErrorFromStatus(err)
	}
	in := &incoming{again: make(chan struct{}, 1)}
	ended := make(chan struct{})
	tooLate := time.AfterFunc(firstView, func() { cancel(errors.New("the anchor does not answer")) })
	// Views are taken in beside the reports: neither waits for the other. The
	// next session begins after the last view of this one, or it could be
	// overtaken by it.
	go func() {
		defer close(ended)
		cancel(s.takeViews(anchor, stream, in, func() { tooLate.Stop() }))
	}()
	err = s.sendReports(ctx, anchor, stream, in)
	tooLate.Stop()
	cancel(nil)
	<-ended
	return in.any.Load(), err
}

// errMoved ends a session with an anchor that does not lead any more.
var errMoved = errors.New("another anchor leads now")

// incoming is what the receiving side of a session tells the sending one.
type incoming struct {
	any   atomic.Bool   // a view came
	again chan struct{} // the anchor lost sight of this node: report once more
}

func (s *syncer) takeViews(from api.NodeID, stream pb.SyncService_SyncClient, in *incoming, first func()) error {
	var v api.ClusterView // as of the last message: a delta applies to it
	for {
		msg, err := stream.Recv()
		if err != nil {
			return wire.ErrorFromStatus(err)
		}
		first()
		if msg.GetView() != nil {
			v = wire.ClusterViewFromPB(msg.GetView())
		} else if v, err = v.Apply(wire.ViewDeltaFromPB(msg.GetDelta())); err != nil {
			return err // the next session begins with a whole view
		}
		if err := s.receive(from, v); err != nil {
			return err
		}
		in.any.Store(true)
		if n, ok := nodeOf(&v, s.self); ok && n.State == api.NodeDown {
			select { // taken for dead while the stream lived
			case in.again <- struct{}{}:
			default:
			}
		}
	}
}

func (s *syncer) sendReports(ctx context.Context, anchor api.NodeID, stream pb.SyncService_SyncClient, in *incoming) error {
	poll := time.NewTicker(pollInventory)
	defer poll.Stop()
	var sent outgoing
	_, moved := s.leader()
	for {
		report, changed := s.report()
		if sent.due(report, time.Now()) {
			if err := stream.Send(&pb.SyncRequest{Report: wire.NodeReportToPB(report)}); err != nil {
				return failure(ctx, err)
			}
		}
		select {
		case <-in.again:
			sent = outgoing{}
		case <-changed:
			if retry.Sleep(ctx, settle) != nil {
				return failure(ctx, nil)
			}
		case <-moved:
			var leader api.NodeID
			if leader, moved = s.leader(); leader != anchor {
				return errMoved
			}
		case <-poll.C:
			if in.any.Load() {
				s.alive()
			}
		case <-ctx.Done():
			return failure(ctx, nil)
		}
	}
}

// outgoing remembers what was reported. Every report is an entry of the Raft
// log and a new view for every node, so nothing is reported twice, and facts
// that may flap (addresses, the kind of NAT) the less often the more they do.
type outgoing struct {
	last    *pb.NodeReport
	pace    retry.Backoff
	restful time.Time // of the last report of such facts
	next    time.Time // when they may be reported again
}

// due reports whether a report should be sent now, and notes that it is.
func (o *outgoing) due(r api.NodeReport, now time.Time) bool {
	const calm = 5 * time.Minute // without a change: then it was no flapping
	msg := wire.NodeReportToPB(r)
	switch {
	case o.last == nil:
		o.pace = retry.Backoff{Initial: pollInventory, Max: time.Minute}
	case proto.Equal(o.last, msg):
		return false
	case !proto.Equal(withoutPaths(o.last), withoutPaths(msg)):
	case now.Before(o.next):
		return false
	default:
		if now.Sub(o.restful) > calm {
			o.pace.Reset()
		}
		o.restful, o.next = now, now.Add(o.pace.Next())
	}
	o.last = msg
	return true
}

// withoutPaths is a report without what depends on the network, and on the
// plug, around.
func withoutPaths(r *pb.NodeReport) *pb.NodeReport {
	c := proto.CloneOf(r)
	if inv := c.GetInventory(); inv != nil {
		inv.Addresses, inv.Public, inv.Nat, inv.Power, inv.BandwidthSource = nil, false, "", nil, ""
		if capacity := inv.GetCapacity(); capacity != nil {
			capacity.BandwidthBps = 0
		}
	}
	return c
}

// failure returns why a session ended: what the receiving side heard, if
// anything, because a failed Send only says that the stream is closed.
func failure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// anchorsOf lists the anchors to try: the leader, as it was heard of last, the
// other anchors, and those known from enrolment.
func anchorsOf(leader api.NodeID, v api.ClusterView, contacts []contactFile, self api.NodeID, anchor bool) []api.NodeID {
	var out []api.NodeID
	add := func(id api.NodeID) {
		if id != "" && !slices.Contains(out, id) && (id != self || anchor) {
			out = append(out, id)
		}
	}
	add(leader)
	add(v.Leader)
	for _, n := range v.Nodes {
		if n.HoldsState() {
			add(n.ID)
		}
	}
	for _, c := range contacts {
		add(c.ID)
	}
	if anchor {
		add(self)
	}
	return out
}
