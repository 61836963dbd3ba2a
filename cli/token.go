package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Invite devices and people into the cluster"}
	cmd.AddCommand(
		a.tokenCreateCommand(),
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the tokens that can still be used; with -o wide all",
			Args: exactly(),
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
				return runTokenList(ctx, c, p, a.stderr)
			}),
		},
		&cobra.Command{
			Use: "revoke ID", Short: "Make a token useless",
			Args: exactly("ID"),
			RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
				return runTokenRevoke(ctx, args[0], c, p)
			}),
		},
	)
	return cmd
}

type tokenCreateOptions struct {
	role string
	ttl  time.Duration
	uses int
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var opts tokenCreateOptions
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token that lets a device join or a person log in",
		Args:  exactly(),
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runTokenCreate(ctx, opts, c, p, a.stderr)
		}),
	}
	cmd.Flags().StringVar(&opts.role, "role", string(api.RoleNode), "what its holder becomes: `node|operator|viewer`")
	cmd.Flags().DurationVar(&opts.ttl, "ttl", 15*time.Minute, "how long it can be used")
	cmd.Flags().IntVar(&opts.uses, "uses", 1, "how often it can be used")
	return cmd
}

func (o tokenCreateOptions) check() error {
	switch role := api.Role(o.role); {
	case role != api.RoleNode && role != api.RoleOperator && role != api.RoleViewer:
		return api.Invalid("--role", "%q is not node, operator or viewer", o.role)
	case o.ttl <= 0:
		return api.Invalid("--ttl", "%s is no time at all", o.ttl).WithHint("write it like 15m")
	case o.uses < 1:
		return api.Invalid("--uses", "%d is less than 1", o.uses)
	}
	return nil
}

// runTokenCreate prints the token alone on stdout, so that a script can take it
// as it is, and tells people about it on notes.
func runTokenCreate(ctx context.Context, opts tokenCreateOptions, c *client.Client, p *printer, notes io.Writer) error {
	if err := opts.check(); err != nil {
		return err
	}
	text, record, err := c.CreateToken(ctx, api.TokenRequest{Role: api.Role(opts.role), TTL: opts.ttl, Uses: opts.uses})
	if err != nil {
		return err
	}
	switch {
	case p.machine():
		return p.value(struct {
			Token string `json:"token"`
			tokenJSON
		}{text, newTokenJSON(record)})
	case p.format == formatName:
		_, err = fmt.Fprintln(p.out, record.ID)
		return err
	}
	fmt.Fprintf(notes, "token %s for a new %s, %s, for the next %s; it is shown only this once\n",
		record.ID, record.Role, times(record.Uses), short(record.ExpiresAt.Sub(p.now)+time.Second))
	_, err = fmt.Fprintln(p.out, text)
	return err
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

// runTokenList shows people what they can use, and programs everything.
func runTokenList(ctx context.Context, c *client.Client, p *printer, notes io.Writer) error {
	tokens, err := c.Tokens(ctx)
	if err != nil {
		return err
	}
	if p.format == formatTable {
		all := len(tokens)
		tokens = slices.DeleteFunc(tokens, func(t api.Token) bool { return tokenState(p.now, t) != tokenUsable })
		if gone := all - len(tokens); gone > 0 {
			fmt.Fprintf(notes, "%d more, used up or expired: -o wide shows them\n", gone)
		}
	}
	return printList(p, tokens, array(tokens, newTokenJSON), func(t api.Token) string { return t.ID }, tokenColumns)
}

func runTokenRevoke(ctx context.Context, id string, c *client.Client, p *printer) error {
	if err := c.RevokeToken(ctx, id); err != nil {
		return err
	}
	revoked := struct {
		ID      string `json:"id"`
		Revoked bool   `json:"revoked"`
	}{id, true}
	return p.done(revoked, id, "token %s revoked", id)
}

// tokenJSON is the record of a token as scripts see it.
type tokenJSON struct {
	ID        string   `json:"id"`
	Role      api.Role `json:"role"`
	ExpiresAt moment   `json:"expires_at"`
	Uses      int      `json:"uses"`
	CreatedAt moment   `json:"created_at"`
	CreatedBy string   `json:"created_by"`
}

func newTokenJSON(t api.Token) tokenJSON {
	return tokenJSON{t.ID, t.Role, moment(t.ExpiresAt), t.Uses, moment(t.CreatedAt), t.CreatedBy}
}

const tokenUsable = "usable"

func tokenState(now time.Time, t api.Token) string {
	switch {
	case t.Uses < 1:
		return "used up"
	case !t.ExpiresAt.After(now):
		return "expired"
	}
	return tokenUsable
}

// tokenCreator shortens the IDs of nodes in who made a token.
func tokenCreator(t api.Token) string {
	words := strings.Fields(t.CreatedBy)
	for i, word := range words {
		if strings.HasPrefix(word, "12D3KooW") {
			words[i] = shortID(api.NodeID(word))
		}
	}
	return or(strings.Join(words, " "), none)
}

var tokenColumns = []column[api.Token]{
	{title: "ID", text: func(_ *printer, t api.Token) string { return t.ID }},
	{title: "ROLE", text: func(_ *printer, t api.Token) string { return string(t.Role) }},
	{title: "STATE", text: func(p *printer, t api.Token) string { return tokenState(p.now, t) }},
	{title: "USES", text: func(_ *printer, t api.Token) string { return strconv.Itoa(t.Uses) }},
	{title: "EXPIRES", text: func(p *printer, t api.Token) string {
		if !t.ExpiresAt.After(p.now) {
			return age(p.now, t.ExpiresAt) + " ago"
		}
		return "in " + short(t.ExpiresAt.Sub(p.now))
	}},
	{title: "BY", text: func(_ *printer, t api.Token) string { return tokenCreator(t) }},
}
