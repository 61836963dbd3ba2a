package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/api/manifest"
)

type applyOptions struct {
	files  []string
	dryRun bool
	wait   bool
}

func (a *app) applyCommand() *cobra.Command {
	var opts applyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE|-",
		Short: "Bring the cluster to what manifests say",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badUsage(cmd.CommandPath(), "there is no place for %q, did you mean -f %s", args[0], args[0])
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		// What is wrong with the manifests is said before any node is asked.
		documents, err := a.readManifests(opts.files)
		if err != nil {
			return err
		}
		return a.within(a.waitTimeout(&opts.wait), func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runApply(ctx, opts, documents, c, p, a.waiter())
		})(cmd, args)
	}
	cmd.Flags().StringArrayVarP(&opts.files, "file", "f", nil, "`FILE` with manifests, - for stdin; repeatable")
	cmd.Flags().BoolVar(&opts.dryRun, "dry-run", false, "say what would happen, change nothing")
	cmd.Flags().BoolVar(&opts.wait, "wait", false, "wait until everything is healthy")
	return cmd
}

// readManifests reads every document of every file, and refuses them all when
// one is wrong.
func (a *app) readManifests(files []string) ([]manifest.Document, error) {
	if len(files) == 0 {
		return nil, badUsage("cloudless apply", "-f is missing")
	}
	var all []manifest.Document
	var wrong []error
	for _, file := range files {
		f, err := a.open(file)
		if err != nil {
			return nil, err
		}
		documents, err := manifest.Decode(f, file)
		f.Close()
		if err != nil {
			wrong = append(wrong, err)
		}
		all = append(all, documents...)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	if len(all) == 0 {
		return nil, api.Errorf(api.KindInvalid, "the manifests are empty")
	}
	return all, nil
}

// applied is the outcome of one document.
type applied struct {
	Kind     string       `json:"kind"`
	Name     string       `json:"name"`
	Outcome  api.Outcome  `json:"outcome"`
	DryRun   bool         `json:"dry_run"`
	Workload workloadJSON `json:"workload"`
}

// runApply applies the documents in order and stops at the first that fails;
// what was done until then is printed all the same.
func runApply(ctx context.Context, opts applyOptions, documents []manifest.Document, c *client.Client, p *printer, w *waiter) error {
	results := make([]applied, 0, len(documents))
	for _, d := range documents {
		result, err := applyOne(ctx, opts, d, c)
		if err != nil {
			return report(p, results, err)
		}
		results = append(results, result)
		if !p.machine() {
			if err := p.done(nil, result.Name, "%s", result.sentence()); err != nil {
				return err
			}
		}
	}
	if opts.wait && !opts.dryRun {
		for i, r := range results {
			status, err := w.healthy(ctx, c, r.Name, r.Workload.Revision)
			if err != nil {
				return report(p, results, err)
			}
			results[i].Workload = newWorkloadJSON(status)
		}
	}
	return report(p, results, nil)
}

// report prints results to programs and returns err, if any.
func report(p *printer, results []applied, err error) error {
	if p.machine() {
		if printErr := p.value(results); err == nil {
			err = printErr
		}
	}
	return err
}

func applyOne(ctx context.Context, opts applyOptions, d manifest.Document, c *client.Client) (applied, error) {
	if d.Kind != manifest.KindWorkload || d.Workload == nil {
		return applied{}, api.Errorf(api.KindUnsupported, "%s %s: this version applies workloads only", d.Kind, d.Name)
	}
	status, outcome, err := c.Apply(ctx, api.ApplyRequest{
		Name: d.Name, Labels: d.Labels, Spec: *d.Workload,
		DryRun: opts.dryRun, IdempotencyKey: newIdempotencyKey(),
	})
	if err != nil {
		return applied{}, err
	}
	return applied{Kind: d.Kind, Name: d.Name, Outcome: outcome, DryRun: opts.dryRun, Workload: newWorkloadJSON(status)}, nil
}

func (r applied) sentence() string {
	text := fmt.Sprintf("workload %s %s", r.Name, r.Outcome)
	if r.DryRun {
		text += " (dry run)"
	}
	return text
}
