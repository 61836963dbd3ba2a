package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

// The environment variables that stand in for global flags.
const (
	envSocket  = "CLOUDLESS_SOCKET"
	envContext = "CLOUDLESS_CONTEXT"
	envNoColor = "NO_COLOR"
)

// defaultTimeout bounds a command that asks one question and shows the answer.
const defaultTimeout = 30 * time.Second

// globalFlags are understood by every command.
type globalFlags struct {
	socket    string
	context   string
	peer      string
	output    string
	noHeaders bool
	timeout   time.Duration
	noColor   bool
	yes       bool
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "cloudless",
		Short: "Run containers on your own devices, wherever they are",
		Long: "Cloudless joins devices behind any NAT into one private cloud.\n" +
			"Every device runs \"cloudless node start\"; every other command talks to one of them.",
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkFlags() },
	}
	a.addGlobalFlags(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return badUsage(cmd.CommandPath(), "%w", err)
	})
	root.AddCommand(
		a.nodeCommand(), a.anchorCommand(), a.tokenCommand(), a.loginCommand(), a.contextCommand(),
		a.applyCommand(), a.workloadCommand(), a.imageCommand(),
		a.networkCommand(), a.eventsCommand(), a.doctorCommand(), a.versionCommand(),
	)
	// Cobra would add these two itself, but they answer a wrong word with success.
	root.SetOut(a.stdout)
	root.InitDefaultCompletionCmd()
	root.SetHelpCommand(helpCommand())
	groups(root)
	return root
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return badUsage(cmd.Root().CommandPath(), "there is no command %q", strings.Join(args, " "))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if about, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, sub := range about.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func (a *app) addGlobalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.flags.socket, "socket", "", "`PATH` of the node's socket (default "+client.DefaultSocket+", else $"+envSocket+")")
	f.StringVar(&a.flags.context, "context", "", "`NAME` of the context to use (else $"+envContext+", else the current one)")
	f.StringVar(&a.flags.peer, "peer", "", "talk to the peer at `MULTIADDR`, with the context's identity")
	f.StringVarP(&a.flags.output, "output", "o", formatTable, "`FORMAT`: "+strings.Join(formats, "|"))
	f.BoolVar(&a.flags.noHeaders, "no-headers", false, "leave the header of tables out")
	f.DurationVar(&a.flags.timeout, "timeout", 0, "give up after this `DURATION` (default 30s; 5m with --wait; never for streams)")
	f.BoolVar(&a.flags.noColor, "no-color", false, "no colours (else $"+envNoColor+")")
	f.BoolVar(&a.flags.yes, "yes", false, "answer yes to every question")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) checkFlags() error {
	if !slices.Contains(formats, a.flags.output) {
		return api.Invalid("--output", "%q is not a format", a.flags.output).
			WithHint("choose one of %s", strings.Join(formats, ", "))
	}
	if a.flags.timeout < 0 {
		return api.Invalid("--timeout", "%s is negative", a.flags.timeout).
			WithHint("write it like 30s or 5m")
	}
	return nil
}

// groups makes every command that only groups others answer a wrong verb with
// an error, where cobra would print the help and succeed.
func groups(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		groups(sub)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("%q is not a command of %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += ", did you mean " + strings.Join(near, " or ")
		}
		return badUsage(cmd.CommandPath(), "%s", text)
	}
}

// exactly is the check of a command that takes these arguments and no others.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return badUsage(cmd.CommandPath(), "%s is missing", names[len(args)])
		case len(args) > len(names):
			return badUsage(cmd.CommandPath(), "there is no place for %q", args[len(names)])
		}
		return nil
	}
}

// atLeast is the check of a command that takes these arguments and maybe more.
func atLeast(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return badUsage(cmd.CommandPath(), "%s is missing", names[len(args)])
		}
		return nil
	}
}

// action is what a command does with a node.
type action func(ctx context.Context, c *client.Client, p *printer, args []string) error

// ask returns a command's body that asks a node, within the usual timeout.
func (a *app) ask(do action) func(*cobra.Command, []string) error {
	return a.within(func() time.Duration { return defaultTimeout }, do)
}

// look returns a command's body that shows a person what there is: while no
// anchor can be reached, what the node knew last, and since when that is old.
func (a *app) look(do action) func(*cobra.Command, []string) error {
	return a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
		var once sync.Once
		ctx = client.AllowStale(ctx, func(since time.Time) { once.Do(func() { a.warnStale(since) }) })
		return do(ctx, c, p, args)
	})
}

func (a *app) warnStale(since time.Time) {
	when := "the start: this node has not heard from one yet"
	if !since.IsZero() {
		when = since.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(a.stderr, "stale since %s: no anchor can be reached, this is what the node knew last\n", when)
}

// stream returns a command's body that asks a node and takes the time it takes,
// unless --timeout says otherwise.
func (a *app) stream(do action) func(*cobra.Command, []string) error {
	return a.within(func() time.Duration { return 0 }, do)
}

func (a *app) within(usual func() time.Duration, do action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		timeout := a.flags.timeout
		if timeout == 0 {
			timeout = usual()
		}
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		c, closeClient, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer closeClient()
		err = do(ctx, c, a.printer(), args)
		if timeout > 0 && errors.Is(err, context.DeadlineExceeded) {
			return errTimeout(timeout)
		}
		return err
	}
}

func errTimeout(after time.Duration) error {
	return api.Errorf(api.KindTimeout, "no answer within %s", after).
		WithHint("allow more time with --timeout")
}

// socket returns where the local node listens.
func (a *app) socket() string {
	switch {
	case a.flags.socket != "":
		return a.flags.socket
	case os.Getenv(envSocket) != "":
		return os.Getenv(envSocket)
	}
	return client.DefaultSocket
}
