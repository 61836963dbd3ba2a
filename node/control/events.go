package control

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type eventServer struct {
	pb.UnimplementedEventServiceServer
	*Server
}

// maxEvents bounds one answer; a reader goes on after the last ID of it.
const maxEvents = 1000

func (s *eventServer) ListEvents(ctx context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	limit := int(req.GetLimit())
	if limit <= 0 || limit > maxEvents {
		limit = maxEvents
	}
	filter := wire.EventFilterFromPB(req.GetFilter())
	var found []api.Event
	for _, e := range view.EventsAfter(req.GetAfter(), state.MaxEvents) {
		if filter.Matches(&e) {
			found = append(found, e)
		}
	}
	found = found[max(0, len(found)-limit):]
	reply := &pb.ListEventsResponse{}
	for _, e := range found {
		reply.Events = append(reply.Events, wire.EventToPB(e))
	}
	return reply, nil
}

func (s *eventServer) WatchEvents(req *pb.WatchEventsRequest, stream pb.EventService_WatchEventsServer) error {
	filter := wire.EventFilterFromPB(req.GetFilter())
	after := req.GetAfter()
	for {
		view, changed := s.cfg.Anchor.Store().Watch()
		for _, e := range view.EventsAfter(after, state.MaxEvents) {
			after = e.ID
			if !filter.Matches(&e) {
				continue
			}
			if err := stream.Send(&pb.WatchEventsResponse{Event: wire.EventToPB(e)}); err != nil {
				return err
			}
		}
		if err := s.waitLeading(stream.Context(), changed); err != nil {
			return err
		}
	}
}
