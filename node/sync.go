package node

import (
	"context"
	"errors"
	"slices"
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
	self        api.NodeID
	incarnation uint64

	conn       func(api.NodeID) (*grpc.ClientConn, error)
	redial     func(api.NodeID)
	candidates func() []api.NodeID // anchors, the likely leader first
	report     func() (r api.NodeReport, changed <-chan struct{})
	receive    func(api.ClusterView)
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

// run tries the anchors in turn until ctx ends.
func (s *syncer) run(ctx context.Context) error {
	backoff := retry.Backoff{Initial: 200 * time.Millisecond, Max: 2 * time.Second}
	for ctx.Err() == nil {
		for _, anchor := range s.candidates() {
			worked, err := s.session(ctx, anchor)
			if ctx.Err() != nil {
				return nil
			}
			if worked {
				backoff.Reset()
			}
			s.log.Info("not in sync with an anchor", zap.String("peer", string(anchor)), zap.Error(err))
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
	defer cancel(nil)
	stream, err := pb.NewSyncServiceClient(conn).Sync(ctx)
	if err != nil {
		return false, wire.ErrorFromStatus(err)
	}
	views := make(chan api.ClusterView)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				cancel(wire.ErrorFromStatus(err))
				return
			}
			select {
			case views <- wire.ClusterViewFromPB(msg.GetView()):
			case <-ctx.Done():
				return
			}
		}
	}()
	tooLate := time.AfterFunc(firstView, func() { cancel(errors.New("the anchor does not answer")) })
	defer tooLate.Stop()
	poll := time.NewTicker(pollInventory)
	defer poll.Stop()
	var last *pb.NodeReport
	for {
		report, changed := s.report()
		if msg := wire.NodeReportToPB(report); last == nil || !proto.Equal(last, msg) {
			if err := stream.Send(&pb.SyncRequest{Report: msg}); err != nil {
				return worked, failure(ctx, err)
			}
			last = msg
		}
		select {
		case v := <-views:
			tooLate.Stop()
			worked = true
			s.receive(v)
			if n, ok := nodeOf(&v, s.self); ok && n.State == api.NodeDown {
				last = nil // taken for dead while the stream lived: report again
			}
		case <-changed:
			if retry.Sleep(ctx, settle) != nil {
				return worked, failure(ctx, nil)
			}
		case <-poll.C:
		case <-ctx.Done():
			return worked, failure(ctx, nil)
		}
	}
}

// failure returns why a session ended: what the receiving side heard, if
// anything, because a failed Send only says that the stream is closed.
func failure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// anchorsOf lists the anchors to try: the leader, the other voters, and those
// known from enrolment.
func anchorsOf(v api.ClusterView, contacts []contactFile, self api.NodeID, anchor bool) []api.NodeID {
	var out []api.NodeID
	add := func(id api.NodeID) {
		if id != "" && !slices.Contains(out, id) && (id != self || anchor) {
			out = append(out, id)
		}
	}
	add(v.Leader)
	for _, n := range v.Nodes {
		if n.Voter {
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
