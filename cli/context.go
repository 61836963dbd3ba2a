package cli

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
)

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "context", Short: "Choose which cluster the commands talk to"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the clusters you are logged in to",
			Args: exactly(),
			RunE: func(*cobra.Command, []string) error { return runContextList(a.printer()) },
		},
		&cobra.Command{
			Use: "use NAME", Short: "Make a context the current one",
			Args: exactly("NAME"),
			ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
				all, err := loadContexts()
				if err != nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return array(all.Contexts, func(c *clusterAccess) string { return c.Name }), cobra.ShellCompDirectiveNoFileComp
			},
			RunE: func(_ *cobra.Command, args []string) error { return runContextUse(args[0], a.printer()) },
		},
	)
	return cmd
}

func runContextList(p *printer) error {
	all, err := loadContexts()
	if err != nil {
		return err
	}
	items := array(all.Contexts, func(c *clusterAccess) contextJSON { return newContextJSON(c, all.Current) })
	return printList(p, items, items, func(c contextJSON) string { return c.Name }, contextColumns)
}

func runContextUse(name string, p *printer) error {
	all, err := loadContexts()
	if err != nil {
		return err
	}
	access, err := all.find(name)
	if err != nil {
		return err
	}
	all.Current = name
	if err := all.save(); err != nil {
		return err
	}
	return p.done(newContextJSON(access, name), name, "context %s is the current one", name)
}

// contextJSON is a context as scripts see it: no keys.
type contextJSON struct {
	Name        string     `json:"name"`
	Current     bool       `json:"current"`
	Cluster     string     `json:"cluster"`
	ClusterName string     `json:"cluster_name"`
	Operator    string     `json:"operator"`
	Roles       []api.Role `json:"roles"`
	ExpiresAt   moment     `json:"expires_at"`
	Peers       []string   `json:"peers"`
}

func newContextJSON(c *clusterAccess, current string) contextJSON {
	j := contextJSON{
		Name: c.Name, Current: c.Name == current, Cluster: c.Cluster, ClusterName: c.ClusterName,
		Operator: c.Operator, Roles: append([]api.Role{}, c.Roles...), Peers: slices.Concat([]string{}, c.Peers, c.Others),
	}
	if credentials, err := c.credentials(); err == nil {
		j.ExpiresAt = moment(credentials.certificate.NotAfter)
	}
	return j
}

var contextColumns = []column[contextJSON]{
	{title: "CURRENT", text: func(_ *printer, c contextJSON) string {
		if c.Current {
			return "*"
		}
		return ""
	}},
	{title: "NAME", text: func(_ *printer, c contextJSON) string { return c.Name }},
	{title: "CLUSTER", text: func(_ *printer, c contextJSON) string { return c.ClusterName }},
	{title: "OPERATOR", text: func(_ *printer, c contextJSON) string { return c.Operator }},
	{title: "CERTIFICATE", text: func(p *printer, c contextJSON) string {
		left := time.Time(c.ExpiresAt).Sub(p.now)
		if left <= 0 {
			return "expired"
		}
		return "for " + short(left)
	}},
	{title: "ID", wide: true, text: func(_ *printer, c contextJSON) string { return c.Cluster }},
}
