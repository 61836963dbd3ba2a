package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Apply creates a workload or brings it to the given spec.
func (c *Client) Apply(ctx context.Context, req api.ApplyRequest) (api.WorkloadStatus, api.Outcome, error) {
	r, err := c.workloads.ApplyWorkload(ctx, wire.ApplyRequestToPB(req))
	if err != nil {
		return api.WorkloadStatus{}, "", err
	}
	return wire.WorkloadStatusFromPB(r.GetWorkload()), api.Outcome(r.GetOutcome()), nil
}

// Workloads returns every workload, by name, without its replicas.
func (c *Client) Workloads(ctx context.Context) ([]api.WorkloadStatus, error) {
	r, err := c.workloads.ListWorkloads(ctx, &pb.ListWorkloadsRequest{})
	if err != nil {
		return nil, err
	}
	return all(r.GetWorkloads(), wire.WorkloadStatusFromPB), nil
}

// Workload returns one workload with its replicas.
func (c *Client) Workload(ctx context.Context, name string) (api.WorkloadStatus, error) {
	r, err := c.workloads.GetWorkload(ctx, &pb.GetWorkloadRequest{Name: name})
	if err != nil {
		return api.WorkloadStatus{}, err
	}
	return wire.WorkloadStatusFromPB(r.GetWorkload()), nil
}

// DeleteWorkload stops a workload's replicas and forgets it.
func (c *Client) DeleteWorkload(ctx context.Context, name string) error {
	_, err := c.workloads.DeleteWorkload(ctx, &pb.DeleteWorkloadRequest{Name: name})
	return err
}

// RestartWorkload replaces every replica of a workload by a new one.
func (c *Client) RestartWorkload(ctx context.Context, name string) (api.WorkloadStatus, error) {
	r, err := c.workloads.RestartWorkload(ctx, &pb.RestartWorkloadRequest{Name: name})
	if err != nil {
		return api.WorkloadStatus{}, err
	}
	return wire.WorkloadStatusFromPB(r.GetWorkload()), nil
}

// ScaleWorkload sets the number of a workload's replicas.
func (c *Client) ScaleWorkload(ctx context.Context, name string, replicas int) (api.WorkloadStatus, error) {
	r, err := c.workloads.ScaleWorkload(ctx, &pb.ScaleWorkloadRequest{Name: name, Replicas: int64(replicas)})
	if err != nil {
		return api.WorkloadStatus{}, err
	}
	return wire.WorkloadStatusFromPB(r.GetWorkload()), nil
}

// Explain tells why a workload's replicas, or one replica, are where they are.
func (c *Client) Explain(ctx context.Context, target string) (api.Explanation, error) {
	r, err := c.workloads.ExplainWorkload(ctx, &pb.ExplainWorkloadRequest{Target: target})
	if err != nil {
		return api.Explanation{}, err
	}
	return wire.ExplanationFromPB(r.GetExplanation()), nil
}

// Logs returns the lines of a workload or a replica as they arrive. It ends
// after the first error; breaking out of the loop ends the stream.
func (c *Client) Logs(ctx context.Context, req api.LogRequest) iter.Seq2[api.LogEntry, error] {
	return receive(ctx, func(ctx context.Context) (receiver[*pb.LogsResponse], error) {
		return c.workloads.Logs(ctx, wire.LogRequestToPB(req))
	}, wire.LogEntryFromPB)
}

type receiver[P any] interface{ Recv() (P, error) }

// receive yields what a server stream sends, converted.
func receive[P, A any](ctx context.Context, open func(context.Context) (receiver[P], error), convert func(P) A) iter.Seq2[A, error] {
	return func(yield func(A, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var zero A
		s, err := open(ctx)
		if err != nil {
			yield(zero, err)
			return
		}
		for {
			p, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(zero, err)
				return
			}
			if !yield(convert(p), nil) {
				return
			}
		}
	}
}
