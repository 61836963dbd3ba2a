package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// EventToPB converts an event.
func EventToPB(e api.Event) *pb.Event {
	return &pb.Event{
		Id:      e.ID,
		Time:    timeToPB(e.Time),
		Type:    string(e.Type),
		Code:    string(e.Code),
		Reason:  e.Reason,
		Object:  &pb.Object{Kind: e.Object.Kind, Name: e.Object.Name},
		Message: e.Message,
		Node:    string(e.Node),
		Fields:  e.Fields,
	}
}

// EventFromPB converts an event.
func EventFromPB(p *pb.Event) api.Event {
	return api.Event{
		ID:      p.GetId(),
		Time:    timeFromPB(p.GetTime()),
		Type:    api.EventType(p.GetType()),
		Code:    api.Code(p.GetCode()),
		Reason:  p.GetReason(),
		Object:  api.Object{Kind: p.GetObject().GetKind(), Name: p.GetObject().GetName()},
		Message: p.GetMessage(),
		Node:    api.NodeID(p.GetNode()),
		Fields:  p.GetFields(),
	}
}

// EventFilterToPB converts a selection of events.
func EventFilterToPB(f api.EventFilter) *pb.EventFilter {
	return &pb.EventFilter{
		Type:   string(f.Type),
		Object: &pb.Object{Kind: f.Object.Kind, Name: f.Object.Name},
		Since:  timeToPB(f.Since),
	}
}

// EventFilterFromPB converts a selection of events.
func EventFilterFromPB(p *pb.EventFilter) api.EventFilter {
	return api.EventFilter{
		Type:   api.EventType(p.GetType()),
		Object: api.Object{Kind: p.GetObject().GetKind(), Name: p.GetObject().GetName()},
		Since:  timeFromPB(p.GetSince()),
	}
}
