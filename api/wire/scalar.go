package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cloudless-project/cloudless/api"
)

// list converts every element, and nothing to nil.
func list[From, To any](in []From, convert func(From) To) []To {
	if len(in) == 0 {
		return nil
	}
	out := make([]To, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

// pointer converts what is pointed at, and nil to nil.
func pointer[From, To any](in *From, convert func(From) To) *To {
	if in == nil {
		return nil
	}
	out := convert(*in)
	return &out
}

// names converts between kinds of string.
func names[To, From ~string](in []From) []To {
	return list(in, func(s From) To { return To(s) })
}

func timeToPB(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFromPB(p *timestamppb.Timestamp) time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.AsTime()
}

func durationToPB(d api.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d.Std())
}

func durationFromPB(p *durationpb.Duration) api.Duration {
	return api.Duration(p.AsDuration())
}

func intToPB(i int) int64   { return int64(i) }
func intFromPB(i int64) int { return int(i) }
