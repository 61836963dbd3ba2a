package control

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/container"
)

// Logs merges the output of the target's replicas, read from their nodes.
func (s *workloadServer) Logs(req *pb.LogsRequest, stream pb.WorkloadService_LogsServer) error {
	found, err := s.targets(req.GetTarget())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	send := func(m *pb.LogsResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(m)
	}
	c := caller(stream.Context())
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	// One replica that cannot be read hides nothing of the others: its error
	// comes at the end.
	var group sync.WaitGroup
	failures := make([]error, len(found))
	for i, r := range found {
		one := &pb.LogsRequest{Target: string(r.ID), Follow: req.GetFollow(), Tail: req.Tail, Since: req.GetSince()}
		group.Go(func() {
			switch {
			case r.Node == s.cfg.Self.ID:
				failures[i] = s.localLogs(ctx, r, one, send)
			case c.Via != "": // one hop is enough: the node that was asked knows where
				failures[i] = api.Errorf(api.KindConflict, "replica %s is not on this node any more", r.ID).WithHint("try again")
			default:
				failures[i] = s.remoteLogs(ctx, c, r, one, send)
			}
		})
	}
	group.Wait()
	return errors.Join(failures...)
}

func (s *workloadServer) localLogs(ctx context.Context, r api.Replica, req *pb.LogsRequest, send func(*pb.LogsResponse) error) error {
	if err := s.checkRuntime(); err != nil {
		return err
	}
	request := wire.LogRequestFromPB(req)
	opts := container.LogOptions{Follow: request.Follow, Since: request.Since}
	if request.Tail != nil {
		opts.Tail = *request.Tail
		if opts.Tail == 0 {
			opts.Tail = -1
		}
	}
	node := s.nodeName(s.cfg.Self.ID)
	for e, err := range s.cfg.Runtime.ReadLogs(ctx, string(r.ID), opts) {
		if api.KindOf(err) == api.KindNotFound {
			return nil // its container is not made yet, or gone
		}
		if err != nil {
			return err
		}
		data := []byte(e.Line)
		if !e.Partial {
			data = append(data, '\n')
		}
		err := send(wire.LogEntryToPB(api.LogEntry{Time: e.Time, Stream: e.Stream, Replica: r.ID, Node: node, Data: data}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *workloadServer) remoteLogs(ctx context.Context, c *Caller, r api.Replica, req *pb.LogsRequest, send func(*pb.LogsResponse) error) error {
	conn, err := s.pool.to(r.Node)
	if err != nil {
		return err
	}
	if ctx, err = onBehalfOf(ctx, c); err != nil {
		return err
	}
	in, err := pb.NewWorkloadServiceClient(conn).Logs(ctx, req)
	if err != nil {
		return s.elsewhere(ctx, r.Node, pb.WorkloadService_Logs_FullMethodName, err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.elsewhere(ctx, r.Node, pb.WorkloadService_Logs_FullMethodName, err)
		}
		if err := send(m); err != nil {
			return err
		}
	}
}
