package client

import (
	"context"
	"iter"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Events returns the newest events after an ID that a filter selects, oldest
// first; limit 0 leaves the bound to the node.
func (c *Client) Events(ctx context.Context, after uint64, limit int, filter api.EventFilter) ([]api.Event, error) {
	r, err := c.events.ListEvents(ctx, &pb.ListEventsRequest{
		After: after, Limit: int64(limit), Filter: wire.EventFilterToPB(filter),
	})
	if err != nil {
		return nil, err
	}
	return all(r.GetEvents(), wire.EventFromPB), nil
}

// WatchEvents returns the events after an ID that a filter selects, then each
// new one. It ends after the first error; whoever wants to go on calls it again
// with the ID of the last event it saw.
func (c *Client) WatchEvents(ctx context.Context, after uint64, filter api.EventFilter) iter.Seq2[api.Event, error] {
	return receive(ctx, func(ctx context.Context) (receiver[*pb.WatchEventsResponse], error) {
		return c.events.WatchEvents(ctx, &pb.WatchEventsRequest{After: after, Filter: wire.EventFilterToPB(filter)})
	}, func(r *pb.WatchEventsResponse) api.Event { return wire.EventFromPB(r.GetEvent()) })
}
