package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

type workloadLogsOptions struct {
	target string
	follow bool
	tail   int // -1 for all
	since  time.Duration
}

func (a *app) workloadLogsCommand() *cobra.Command {
	var opts workloadLogsOptions
	cmd := &cobra.Command{
		Use:   "logs W|REPLICA",
		Short: "Show what replicas wrote",
		Args:  exactly("W|REPLICA"), ValidArgsFunction: a.completeWorkloads,
	}
	cmd.RunE = a.stream(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
		switch {
		case cmd.Flags().Changed("tail") && opts.tail < 0:
			return api.Invalid("--tail", "%d is negative", opts.tail)
		case opts.since < 0:
			return errNegativeSince(opts.since)
		}
		opts.target = args[0]
		return runWorkloadLogs(ctx, opts, c, p)
	})
	cmd.Flags().BoolVarP(&opts.follow, "follow", "f", false, "go on as more is written")
	cmd.Flags().IntVar(&opts.tail, "tail", -1, "only the last `N` lines of each replica")
	cmd.Flags().DurationVar(&opts.since, "since", 0, "only what is younger than `D`")
	return cmd
}

func (o *workloadLogsOptions) request(now time.Time) api.LogRequest {
	r := api.LogRequest{Target: o.target, Follow: o.follow}
	if o.tail >= 0 {
		r.Tail = &o.tail
	}
	if o.since > 0 {
		r.Since = now.Add(-o.since)
	}
	return r
}

// runWorkloadLogs prints lines as they are. Those of a workload are marked with
// the replica that wrote them, those of one replica are not.
func runWorkloadLogs(ctx context.Context, opts workloadLogsOptions, c *client.Client, p *printer) error {
	var out logSink = &textLog{out: p.out, marked: !strings.Contains(opts.target, ".")}
	if p.machine() {
		out = &structuredLog{newSequence(p, opts.follow)}
	}
	for entry, err := range c.Logs(ctx, opts.request(p.now)) {
		if err != nil {
			return endOfStream(ctx, opts.follow, err, out.close())
		}
		if err := out.write(entry); err != nil {
			return err
		}
	}
	return out.close()
}

// endOfStream is the error of a stream that ended with err. Whoever follows
// ends it by interrupting, which is no error.
func endOfStream(ctx context.Context, follow bool, err, closing error) error {
	if follow && errors.Is(ctx.Err(), context.Canceled) {
		return closing
	}
	return err
}

type logSink interface {
	write(api.LogEntry) error
	close() error
}

// textLog writes what replicas wrote, byte by byte. A very long line comes in
// parts, and parts of others may come in between.
type textLog struct {
	out     io.Writer
	marked  bool
	partial api.ReplicaID // the replica whose line is not at its end yet
}

func (l *textLog) write(e api.LogEntry) error {
	var b bytes.Buffer
	if l.partial != "" && l.partial != e.Replica {
		b.WriteByte('\n')
	}
	if l.marked && l.partial != e.Replica {
		fmt.Fprintf(&b, "[%s] ", e.Replica)
	}
	b.Write(e.Data)
	l.partial = ""
	if !bytes.HasSuffix(e.Data, []byte("\n")) {
		l.partial = e.Replica
	}
	_, err := l.out.Write(b.Bytes())
	return err
}

func (l *textLog) close() error {
	if l.partial == "" {
		return nil
	}
	_, err := io.WriteString(l.out, "\n")
	return err
}

// structuredLog writes entries for programs.
type structuredLog struct{ *sequence }

func (l *structuredLog) write(e api.LogEntry) error {
	return l.add(struct {
		Time    moment        `json:"time"`
		Stream  string        `json:"stream"`
		Replica api.ReplicaID `json:"replica"`
		Node    string        `json:"node"`
		Data    string        `json:"data"`
	}{moment(e.Time), e.Stream, e.Replica, e.Node, strings.TrimSuffix(string(e.Data), "\n")})
}
