package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

type workloadExecOptions struct {
	target  string
	command []string
	stdin   bool
	tty     bool
	env     []string
}

func (a *app) workloadExecCommand() *cobra.Command {
	var opts workloadExecOptions
	cmd := &cobra.Command{
		Use:   "exec [-it] W|REPLICA -- CMD...",
		Short: "Run a command in a replica; its exit code becomes this one's",
		Args:  atLeast("W|REPLICA", "CMD"), ValidArgsFunction: a.completeWorkloads,
	}
	cmd.RunE = a.stream(func(ctx context.Context, c *client.Client, _ *printer, args []string) error {
		opts.target, opts.command = args[0], args[1:]
		return a.runWorkloadExec(ctx, opts, c)
	})
	cmd.Flags().BoolVarP(&opts.stdin, "stdin", "i", false, "pass stdin on")
	cmd.Flags().BoolVarP(&opts.tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().StringArrayVar(&opts.env, "env", nil, "set `K=V` in its environment; repeatable")
	return cmd
}

// runWorkloadExec connects the command with the streams of this process.
func (a *app) runWorkloadExec(ctx context.Context, opts workloadExecOptions, c *client.Client) error {
	env, err := keyValues("--env", opts.env)
	if err != nil {
		return err
	}
	request := api.ExecRequest{Target: opts.target, Command: opts.command, Env: env, TTY: opts.tty}
	streams := client.ExecStreams{Stdout: a.stdout, Stderr: a.stderr}
	if opts.stdin {
		streams.Stdin = a.stdin
	}
	if opts.tty {
		terminal, err := openTerminal(a.stdin, a.stdout)
		if err != nil {
			return err
		}
		defer terminal.restore()
		streams.Resize = terminal.sizes(ctx)
		request.Size = terminal.size()
	}
	code, err := c.Exec(ctx, request, streams)
	if err != nil {
		return err
	}
	if code != 0 {
		return saidExit(code)
	}
	return nil
}
