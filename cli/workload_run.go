package cli

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

type workloadRunOptions struct {
	image    string
	args     []string
	name     string
	replicas int
	ports    []string
	env      []string
	cpu      string
	memory   string
	wait     bool
}

func (a *app) workloadRunCommand() *cobra.Command {
	var opts workloadRunOptions
	cmd := &cobra.Command{
		Use:   "run IMAGE --name W [-- ARGS...]",
		Short: "Run an image as a new workload",
		Args:  atLeast("IMAGE"),
	}
	cmd.RunE = a.within(a.waitTimeout(&opts.wait), func(ctx context.Context, c *client.Client, p *printer, args []string) error {
		opts.image, opts.args = args[0], args[1:]
		if dash := cmd.ArgsLenAtDash(); len(opts.args) > 0 && dash != 1 {
			return badUsage(cmd.CommandPath(), "%q is not expected here; arguments of the workload come after --", opts.args[0])
		}
		return runWorkloadRun(ctx, opts, c, p, a.waiter())
	})
	f := cmd.Flags()
	f.StringVar(&opts.name, "name", "", "`W`, the name of the workload (required)")
	f.IntVar(&opts.replicas, "replicas", 1, "how many of it")
	f.StringArrayVar(&opts.ports, "port", nil, "serve `[EXT:]PORT[/udp]`: EXT at the service's address, PORT in the container; repeatable")
	f.StringArrayVar(&opts.env, "env", nil, "set `K=V` in its environment; repeatable")
	f.StringVar(&opts.cpu, "cpu", "", "`CPU` of each replica, like 250m or 1.5")
	f.StringVar(&opts.memory, "memory", "", "`MEMORY` of each replica, like 128Mi")
	f.BoolVar(&opts.wait, "wait", false, "wait until it is healthy")
	return cmd
}

func (o *workloadRunOptions) spec() (api.WorkloadSpec, error) {
	spec := api.WorkloadSpec{Image: o.image, Args: o.args, Replicas: o.replicas}
	if o.name == "" {
		return spec, badUsage("cloudless workload run", "--name is missing")
	}
	if err := api.ValidateName("--name", o.name); err != nil {
		return spec, err
	}
	if o.replicas < 0 {
		return spec, api.Invalid("--replicas", "%d is negative", o.replicas)
	}
	var err error
	if spec.Env, err = keyValues("--env", o.env); err != nil {
		return spec, err
	}
	for _, text := range o.ports {
		port, err := parsePort(text)
		if err != nil {
			return spec, err
		}
		spec.Ports = append(spec.Ports, port)
	}
	if o.cpu != "" {
		if spec.Resources.CPU, err = api.ParseCPU(o.cpu); err != nil {
			return spec, api.Invalid("--cpu", "%v", err)
		}
	}
	if o.memory != "" {
		if spec.Resources.Memory, err = api.ParseBytes(o.memory); err != nil {
			return spec, api.Invalid("--memory", "%v", err)
		}
	}
	spec.SetDefaults()
	return spec, spec.Validate("spec")
}

// parsePort parses [EXT:]PORT[/tcp|/udp].
func parsePort(text string) (api.Port, error) {
	wrong := api.Invalid("--port", "%q is not a port", text).WithHint("write it like 80, 80:8080 or 53/udp")
	numbers, protocol, _ := strings.Cut(text, "/")
	if protocol != "" && protocol != "tcp" && protocol != "udp" {
		return api.Port{}, wrong
	}
	outside, inside, both := strings.Cut(numbers, ":")
	if !both {
		inside = outside
	}
	port, err := strconv.ParseUint(outside, 10, 16)
	target, err2 := strconv.ParseUint(inside, 10, 16)
	if err != nil || err2 != nil || port == 0 || target == 0 {
		return api.Port{}, wrong
	}
	return api.Port{Port: int(port), Target: int(target), Protocol: protocol}, nil
}

func runWorkloadRun(ctx context.Context, opts workloadRunOptions, c *client.Client, p *printer, w *waiter) error {
	spec, err := opts.spec()
	if err != nil {
		return err
	}
	if _, err := c.Workload(ctx, opts.name); err == nil {
		return api.Errorf(api.KindExists, "there is a workload %s already", opts.name).
			WithHint("change it with \"cloudless apply\", or choose another name")
	} else if api.KindOf(err) != api.KindNotFound {
		return err
	}
	status, _, err := c.Apply(ctx, api.ApplyRequest{Name: opts.name, Spec: spec, IdempotencyKey: newIdempotencyKey()})
	if err != nil {
		return err
	}
	if opts.wait {
		if status, err = w.healthy(ctx, c, opts.name, status.Revision); err != nil {
			return err
		}
	}
	return p.done(newWorkloadJSON(status), status.Name, "workload %s created", status.Name)
}

type workloadScaleOptions struct {
	name     string
	replicas int
	wait     bool
}

func (a *app) workloadScaleCommand() *cobra.Command {
	var opts workloadScaleOptions
	cmd := &cobra.Command{
		Use: "scale W N", Short: "Set how many replicas a workload has",
		Args: exactly("W", "N"), ValidArgsFunction: a.completeWorkloads,
	}
	cmd.RunE = a.within(a.waitTimeout(&opts.wait), func(ctx context.Context, c *client.Client, p *printer, args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil || n < 0 {
			return badUsage(cmd.CommandPath(), "%q is not a number of replicas", args[1])
		}
		opts.name, opts.replicas = args[0], n
		return runWorkloadScale(ctx, opts, c, p, a.waiter())
	})
	cmd.Flags().BoolVar(&opts.wait, "wait", false, "wait until it is healthy")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// A number below zero looks like a flag.
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
			if n, numErr := strconv.Atoi("-" + unknown.GetSpecifiedShortnames()); numErr == nil {
				return badUsage(cmd.CommandPath(), "%d is not a number of replicas, it is negative", n)
			}
		}
		return badUsage(cmd.CommandPath(), "%w", err)
	})
	return cmd
}

func runWorkloadScale(ctx context.Context, opts workloadScaleOptions, c *client.Client, p *printer, w *waiter) error {
	status, err := c.ScaleWorkload(ctx, opts.name, opts.replicas)
	if err != nil {
		return err
	}
	if opts.wait {
		if status, err = w.healthy(ctx, c, opts.name, status.Revision); err != nil {
			return err
		}
	}
	return p.done(newWorkloadJSON(status), status.Name, "workload %s scaled to %d", status.Name, opts.replicas)
}
