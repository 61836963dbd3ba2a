package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

// defaultDataDir is where the guide and the service unit put a node.
const defaultDataDir = "/var/lib/cloudless"

// HostConfig is what "doctor" is to look at.
type HostConfig struct {
	DataDir    string
	Socket     string // of the node's API
	Containerd string // address, "" for the usual one
}

// HostDoctor gives "doctor" the examination that only works where nodes run.
func HostDoctor(examine func(context.Context, HostConfig) []api.Check) Option {
	return func(a *app) { a.host = examine }
}

func (a *app) doctorCommand() *cobra.Command {
	cfg := HostConfig{}
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine this machine: is it fit to be a node, and safe",
		Long: "Examine this machine: is it fit to be a node, and safe.\n\n" +
			"It needs no running node, and changes nothing. Run it as root to see everything.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), a, cfg) },
	}
	cmd.Flags().StringVar(&cfg.DataDir, "data-dir", defaultDataDir, "`DIR` of the node")
	cmd.Flags().StringVar(&cfg.Containerd, "containerd", "", "`ADDRESS` of the containerd that the node uses")
	return cmd
}

func (a *app) networkDoctorCommand() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine the network around a node: what is wrong, why, and what to change",
		Args: exactly(),
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			checks, err := c.Diagnose(ctx, node)
			if err != nil {
				return err
			}
			return printChecks(p, checks)
		}),
	}
	a.addNodeFlag(cmd, &node)
	return cmd
}

func runDoctor(ctx context.Context, a *app, cfg HostConfig) error {
	if a.host == nil {
		return api.Errorf(api.KindUnsupported, "this platform cannot be a node, there is nothing to examine").
			WithHint("examine the network of a node with \"cloudless network doctor\"")
	}
	timeout := a.flags.timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cfg.Socket = a.socket()
	checks := append(a.host(ctx, cfg), checkDaemon(ctx, cfg.Socket))
	return printChecks(a.printer(), checks)
}

// daemonPatience bounds how long the daemon may take to say how it is.
const daemonPatience = 3 * time.Second

// checkDaemon asks the node of this machine, if there is one.
func checkDaemon(ctx context.Context, socket string) api.Check {
	c := api.Check{Name: "daemon", Status: api.CheckOK}
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		c.Detail = "no node runs here: there is no " + socket
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	status, err := daemonStatus(ctx, socket)
	switch {
	case err != nil:
		c.Status, c.Detail = api.CheckFail, "it does not answer at "+socket+": "+err.Error()
		c.Fix = "start it again, and look into its log"
		if api.KindOf(err) == api.KindDenied {
			c.Fix = "run this as root, or as a member of the group of " + socket
		}
	case !status.Ready:
		c.Status, c.Detail = api.CheckWarn, fmt.Sprintf("node %s of cluster %s is not ready: %s", status.Name, status.ClusterName, status.Reason)
		c.Fix = "see what keeps it: cloudless network doctor"
	default:
		c.Detail = fmt.Sprintf("node %s of cluster %s is ready", status.Name, status.ClusterName)
	}
	return c
}

func daemonStatus(ctx context.Context, socket string) (api.Status, error) {
	c, err := client.Dial(client.Options{Socket: socket})
	if err != nil {
		return api.Status{}, err
	}
	defer c.Close()
	return c.Status(ctx)
}

// printChecks prints what a doctor found, and fails when a check did.
func printChecks(p *printer, checks []api.Check) error {
	var err error
	switch {
	case p.machine():
		err = p.value(append([]api.Check{}, checks...))
	case p.format == formatName:
		err = printNames(p, checks, func(c api.Check) string { return c.Name })
	default:
		err = writeChecks(p, checks)
	}
	if err != nil {
		return err
	}
	for _, c := range checks {
		if c.Status == api.CheckFail {
			return saidExit(exitError)
		}
	}
	return nil
}

// checkMarks stand for the outcomes, for a person.
var checkMarks = map[api.CheckStatus]struct {
	mark   string
	colour colour
}{
	api.CheckOK:   {"✓", colourGreen},
	api.CheckWarn: {"!", colourYellow},
	api.CheckFail: {"✗", colourRed},
}

// writeChecks writes a line for each check, with what to do below it, and how
// many there were of each outcome.
func writeChecks(p *printer, checks []api.Check) error {
	width := 0
	for _, c := range checks {
		width = max(width, utf8.RuneCountInString(plain(c.Name)))
	}
	counts := map[api.CheckStatus]int{}
	var b strings.Builder
	for _, c := range checks {
		counts[c.Status]++
		mark := checkMarks[c.Status]
		text := mark.mark
		if p.coloured {
			text = fmt.Sprintf("\x1b[%dm%s\x1b[0m", mark.colour, mark.mark)
		}
		name := plain(c.Name)
		fmt.Fprintf(&b, "%s %s%s  %s\n", text, name, strings.Repeat(" ", width-utf8.RuneCountInString(name)), plain(c.Detail))
		if c.Fix != "" {
			fmt.Fprintf(&b, "  %s  → %s\n", strings.Repeat(" ", width), plain(c.Fix))
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %s, %s\n", counts[api.CheckOK], counted(counts[api.CheckWarn], "warning"), counted(counts[api.CheckFail], "failure"))
	_, err := io.WriteString(p.out, b.String())
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
