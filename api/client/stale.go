package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/cloudless-project/cloudless/api"
)

type staleKey struct{}

// AllowStale lets the reads of ctx that a person makes be answered from what the
// node knew last while no anchor can be reached; note is told as of when. Reads
// that decide something should not be made with it.
func AllowStale(ctx context.Context, note func(since time.Time)) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, api.AllowStale, "1")
	return context.WithValue(ctx, staleKey{}, note)
}

// noteStale returns the option of a call that brings the answer's headers, and
// what to do with them once it was answered.
func noteStale(ctx context.Context, opts []grpc.CallOption) (_ []grpc.CallOption, answered func()) {
	note, ok := ctx.Value(staleKey{}).(func(time.Time))
	if !ok {
		return opts, func() {}
	}
	var header metadata.MD
	return append(opts, grpc.Header(&header)), func() {
		for _, text := range header.Get(api.StaleSince) {
			if since, err := time.Parse(time.RFC3339Nano, text); err == nil {
				note(since)
			}
		}
	}
}
