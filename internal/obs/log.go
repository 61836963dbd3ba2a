// Package obs sets up what people observe the daemon with.
package obs

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// NewLogger returns the logger of a daemon: lines for a person when w is a
// terminal, JSON otherwise. level is debug, info, warn or error; "" means info.
//
// The keys of structured fields are a fixed vocabulary: node, workload,
// replica, peer, proto, error, took.
func NewLogger(w io.Writer, level string) (*zap.Logger, error) {
	lvl := zapcore.InfoLevel
	if level != "" {
		if err := lvl.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("%q is not a log level: use debug, info, warn or error", level)
		}
	}
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	conf.EncodeDuration = zapcore.StringDurationEncoder
	conf.TimeKey, conf.MessageKey = "time", "msg"
	encoder := zapcore.NewJSONEncoder(conf)
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		conf.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		conf.EncodeLevel = zapcore.CapitalColorLevelEncoder
		encoder = zapcore.NewConsoleEncoder(conf)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), lvl)), nil
}
