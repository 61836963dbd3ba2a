package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) anchorAuthorityCommand() *cobra.Command {
	return &cobra.Command{
		Use: "authority", Short: "Show the authority that signs the certificates",
		Args: exactly(),
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			status, err := c.Authority(ctx)
			if err != nil {
				return err
			}
			return printAuthority(p, status)
		}),
	}
}

// rotateOptions says how the authority's key is replaced.
type rotateOptions struct {
	urgent bool
	wait   bool
}

func (a *app) anchorRotateCommand() *cobra.Command {
	var opts rotateOptions
	cmd := &cobra.Command{
		Use: "rotate-ca", Short: "Replace the key that signs the certificates, while everything runs",
		Args: exactly(),
		RunE: a.within(a.waitTimeout(&opts.wait), func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runAnchorRotate(ctx, opts, c, p, a.waiter())
		}),
	}
	cmd.Flags().BoolVar(&opts.urgent, "now", false, "others may have the present key: do not wait for nodes that are away, they have to join again")
	cmd.Flags().BoolVar(&opts.wait, "wait", false, "wait until every node in sight has a new certificate; with --now until old ones do not count any more")
	return cmd
}

func runAnchorRotate(ctx context.Context, opts rotateOptions, c *client.Client, p *printer, w *waiter) error {
	status, err := c.RotateAuthority(ctx, opts.urgent)
	if err != nil {
		return err
	}
	newest := len(status.Generations)
	sentence := "authority %d was announced; see how it goes with: cloudless anchor authority"
	if opts.wait {
		if status, err = w.rotated(ctx, c, opts.urgent); err != nil {
			return err
		}
		sentence = "authority %d issues, and every node in sight has a certificate of it; make a new backup"
		if opts.urgent {
			sentence = "only certificates of authority %d count; make a new backup"
		}
	}
	return p.done(newAuthorityJSON(status), strconv.Itoa(newest), sentence, newest)
}

// rotated waits for a change of the authority to come as far as it can without
// the nodes that are away, or with urgent to its end.
func (w *waiter) rotated(ctx context.Context, c *client.Client, urgent bool) (api.AuthorityStatus, error) {
	var status api.AuthorityStatus
	err := w.until(ctx, func() (string, bool, error) {
		latest, err := c.Authority(ctx)
		if err != nil {
			return "", false, err
		}
		status = latest
		if status.Phase == api.AuthoritySettled || status.Phase == api.AuthorityIssuing && status.Current && !urgent {
			return "", true, nil
		}
		progress := string(status.Phase)
		if status.Waiting != "" {
			progress += ": " + status.Waiting
		}
		return progress, false, nil
	})
	return status, err
}

// authorityJSON is the authority as scripts see it.
type authorityJSON struct {
	Phase       api.AuthorityPhase `json:"phase"`
	Waiting     string             `json:"waiting,omitempty"`
	Current     bool               `json:"current"`
	Generations []generationJSON   `json:"generations"`
}

type generationJSON struct {
	Generation  int    `json:"generation"`
	Issues      bool   `json:"issues"`
	Urgent      bool   `json:"urgent"`
	AnnouncedAt moment `json:"announced_at"`
	IssuesSince moment `json:"issues_since"`
	RetireAt    moment `json:"retire_at"`
	RetiredAt   moment `json:"retired_at"`
	NotAfter    moment `json:"not_after"`
	Nodes       int    `json:"nodes"`
	Known       int    `json:"known"`
	Certified   int    `json:"certified"`
	Holders     int    `json:"holders"`
}

func newAuthorityJSON(s api.AuthorityStatus) authorityJSON {
	return authorityJSON{
		Phase: s.Phase, Waiting: s.Waiting, Current: s.Current,
		Generations: array(s.Generations, func(g api.AuthorityGeneration) generationJSON {
			return generationJSON{
				Generation: g.Generation, Issues: g.Issues, Urgent: g.Urgent,
				AnnouncedAt: moment(g.AnnouncedAt), IssuesSince: moment(g.IssuesSince),
				RetireAt: moment(g.RetireAt), RetiredAt: moment(g.RetiredAt), NotAfter: moment(g.NotAfter),
				Nodes: g.Nodes, Known: g.Known, Certified: g.Certified, Holders: g.Holders,
			}
		}),
	}
}

var authorityColumns = []column[api.AuthorityGeneration]{
	{title: "GENERATION", text: func(_ *printer, g api.AuthorityGeneration) string { return strconv.Itoa(g.Generation) }},
	{title: "ISSUES", text: func(_ *printer, g api.AuthorityGeneration) string { return yesNo(g.Issues) }},
	{title: "COUNTS", text: func(_ *printer, g api.AuthorityGeneration) string { return countsText(g) }},
	{title: "KNOWN", text: func(_ *printer, g api.AuthorityGeneration) string { return outOf(g.Known, g.Nodes) }},
	{title: "CERTIFIED", text: func(_ *printer, g api.AuthorityGeneration) string { return outOf(g.Certified, g.Nodes) }},
	{title: "HOLDERS", text: func(_ *printer, g api.AuthorityGeneration) string { return strconv.Itoa(g.Holders) }},
	{title: "ENDS", text: func(_ *printer, g api.AuthorityGeneration) string { return day(g.NotAfter) }},
}

func countsText(g api.AuthorityGeneration) string {
	switch {
	case !g.RetiredAt.IsZero():
		return "no, since " + day(g.RetiredAt)
	case !g.RetireAt.IsZero():
		return "until " + day(g.RetireAt)
	}
	return "yes"
}

func outOf(n, all int) string { return fmt.Sprintf("%d/%d", n, all) }

// day says on which day something is, for people who plan.
func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func printAuthority(p *printer, s api.AuthorityStatus) error {
	if p.machine() {
		return p.value(newAuthorityJSON(s))
	}
	if p.format == formatName {
		return printNames(p, s.Generations, func(g api.AuthorityGeneration) string { return strconv.Itoa(g.Generation) })
	}
	if err := printTable(p, s.Generations, authorityColumns); err != nil || s.Waiting == "" {
		return err
	}
	_, err := fmt.Fprintf(p.out, "%s, and waits for %s\n", s.Phase, plain(s.Waiting))
	return err
}
