package raftmeta

import (
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger lets raft and its log write to zap, one level more quietly than
// they would: an election is no warning to people, and an anchor that is away
// is told about by the cluster itself.
func newLogger(log *zap.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	l.RegisterSink(sink{log.WithOptions(zap.WithCaller(false))})
	return l
}

type sink struct{ log *zap.Logger }

var levels = map[hclog.Level]zapcore.Level{
	hclog.Info:  zap.DebugLevel,
	hclog.Warn:  zap.InfoLevel,
	hclog.Error: zap.WarnLevel,
}

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to, ok := levels[level]
	if !ok {
		return
	}
	entry := s.log.Check(to, "raft: "+msg)
	if entry == nil {
		return
	}
	fields := make([]zap.Field, 0, len(args)/2)
	for i := 0; i+1 < len(args); i += 2 {
		key := fmt.Sprint(args[i])
		if key == "error" {
			key = "err"
		}
		fields = append(fields, zap.String(key, text(args[i+1])))
	}
	entry.Write(fields...)
}

func text(v any) string {
	if f, ok := v.(hclog.Format); ok && len(f) > 0 {
		return fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
	}
	return fmt.Sprint(v)
}
