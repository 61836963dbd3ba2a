package cli

import (
	"context"
	"io"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Option adapts the command line to the binary it is part of.
type Option func(*app)

// Daemon gives "node start" the daemon to run until ctx ends. Without it the
// command says that this platform has none.
func Daemon(run func(ctx context.Context, cfg NodeConfig) error) Option {
	return func(a *app) { a.daemon = run }
}

// app is what every command shares.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	flags   globalFlags
	daemon  func(context.Context, NodeConfig) error
	restore func(context.Context, RestoreConfig) (Restored, error)
	host    func(context.Context, HostConfig) []api.Check

	now  func() time.Time
	poll time.Duration // between two looks at what --wait waits for
}

// Run carries out one command line, without the program's name, and returns
// the exit code. It ends early when ctx does.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, options ...Option) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now, poll: 300 * time.Millisecond}
	for _, option := range options {
		option(a)
	}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.fail(ctx, err, args)
}
