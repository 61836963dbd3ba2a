//go:build linux

package containerd

import (
	"context"
	"iter"

	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/logfile"
)

// ReadLogs implements container.Logs.
func (r *Runtime) ReadLogs(ctx context.Context, id string, opts container.LogOptions) iter.Seq2[container.LogEntry, error] {
	return func(yield func(container.LogEntry, error) bool) {
		if _, err := r.record(ctx, id); err != nil {
			yield(container.LogEntry{}, err)
			return
		}
		for e, err := range logfile.Read(ctx, r.logFile(id), opts) {
			if !yield(e, err) {
				return
			}
		}
	}
}
