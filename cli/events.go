package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/internal/retry"
)

type eventsOptions struct {
	follow    bool
	eventType string
	about     string
	since     time.Duration
	limit     int
	pause     time.Duration // before a broken stream is opened anew
}

func (a *app) eventsCommand() *cobra.Command {
	opts := eventsOptions{pause: a.poll}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened in the cluster",
		Args:  exactly(),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := a.ask
		if opts.follow {
			body = a.stream
		}
		return body(func(ctx context.Context, c *client.Client, p *printer, _ []string) error {
			return runEvents(ctx, opts, c, p, a.stderr)
		})(cmd, args)
	}
	f := cmd.Flags()
	f.BoolVar(&opts.follow, "follow", false, "go on as more happens")
	f.StringVar(&opts.eventType, "type", "", "only events of type `T`: membership, scheduling, rollout, network, storage or security")
	f.StringVar(&opts.about, "for", "", "only events about `KIND/NAME`, or about a KIND")
	f.DurationVar(&opts.since, "since", 0, "only what is younger than `D`")
	f.IntVar(&opts.limit, "limit", 100, "at most the last `N` events of the past")
	return cmd
}

// objectKinds are the kinds of things that events are about.
var objectKinds = []string{"node", "workload", "replica", "image", "token", "cluster"}

func (o *eventsOptions) filter(now time.Time) (api.EventFilter, error) {
	f := api.EventFilter{Type: api.EventType(o.eventType)}
	switch f.Type {
	case "", api.EventMembership, api.EventScheduling, api.EventRollout, api.EventNetwork, api.EventStorage, api.EventSecurity:
	default:
		return f, api.Invalid("--type", "%q is not a type of event", o.eventType).
			WithHint("choose membership, scheduling, rollout, network, storage or security")
	}
	if o.limit < 1 {
		return f, api.Invalid("--limit", "%d is less than 1", o.limit)
	}
	if o.about != "" {
		f.Object.Kind, f.Object.Name, _ = strings.Cut(o.about, "/")
		if f.Object.Kind == "" {
			return f, api.Invalid("--for", "%q is not KIND/NAME", o.about).WithHint("write it like node/pi or workload/web")
		}
		f.Object.Kind = strings.ToLower(f.Object.Kind)
		if !slices.Contains(objectKinds, f.Object.Kind) {
			return f, api.Invalid("--for", "%q is not a kind of thing", f.Object.Kind).
				WithHint("choose one of %s", strings.Join(objectKinds, ", "))
		}
	}
	switch {
	case o.since < 0:
		return f, errNegativeSince(o.since)
	case o.since > 0:
		f.Since = now.Add(-o.since)
	}
	return f, nil
}

func errNegativeSince(d time.Duration) error {
	return api.Invalid("--since", "%s is negative", d).WithHint("write it like 10m, for the last ten minutes")
}

func runEvents(ctx context.Context, opts eventsOptions, c *client.Client, p *printer, notes io.Writer) error {
	filter, err := opts.filter(p.now)
	if err != nil {
		return err
	}
	events, err := c.Events(ctx, 0, opts.limit, filter)
	if err != nil {
		return err
	}
	if !opts.follow {
		return printList(p, events, array(events, newEventJSON), eventName, eventColumns)
	}
	f := follower{p: p, after: 0}
	for _, e := range events {
		if err := f.print(e); err != nil {
			return err
		}
	}
	return f.follow(ctx, c, filter, opts.pause, notes)
}

// follower prints events as they come and remembers how far it is.
type follower struct {
	p     *printer
	after uint64
	begun bool
}

// maxReconnects is how often in a row a follower tries to find its node again.
const maxReconnects = 8

// follow goes on after the last event it saw, also across a node's restart.
func (f *follower) follow(ctx context.Context, c *client.Client, filter api.EventFilter, pause time.Duration, notes io.Writer) error {
	backoff := retry.Backoff{Initial: pause, Max: 30 * pause}
	for failures := 0; ; failures++ {
		var broken error
		for e, err := range c.WatchEvents(ctx, f.after, filter) {
			if err != nil {
				broken = err
				break
			}
			failures = 0
			backoff.Reset()
			if err := f.print(e); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return nil
		case broken != nil && (api.KindOf(broken) != api.KindUnavailable || failures == maxReconnects):
			return broken
		case broken != nil:
			fmt.Fprintf(notes, "%s; trying again\n", plain(broken.Error()))
		}
		if err := retry.Sleep(ctx, backoff.Next()); err != nil {
			return endOfStream(ctx, true, err, nil)
		}
	}
}

func (f *follower) print(e api.Event) error {
	f.after = max(f.after, e.ID)
	switch {
	case f.p.machine():
		return f.p.line(newEventJSON(e))
	case f.p.format == formatName:
		return printNames(f.p, []api.Event{e}, eventName)
	}
	if !f.begun && !f.p.noHeaders {
		if _, err := fmt.Fprintf(f.p.out, eventLine, "TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"); err != nil {
			return err
		}
	}
	f.begun = true
	text := fmt.Sprintf(eventLine, e.Time.UTC().Format(time.RFC3339), e.Type, e.Reason, objectText(e.Object), plain(e.Message))
	_, err := io.WriteString(f.p.out, strings.TrimRight(text, " \n")+"\n")
	return err
}

// eventLine has fixed widths: who follows does not know what is to come.
const eventLine = "%-20s  %-10s  %-16s  %-24s  %s\n"

// eventJSON is an event as scripts see it.
type eventJSON struct {
	ID      uint64            `json:"id"`
	Time    moment            `json:"time"`
	Type    api.EventType     `json:"type"`
	Code    api.Code          `json:"code"`
	Reason  string            `json:"reason"`
	Object  api.Object        `json:"object"`
	Message string            `json:"message"`
	Node    api.NodeID        `json:"node"`
	Fields  map[string]string `json:"fields"`
}

func newEventJSON(e api.Event) eventJSON {
	return eventJSON{e.ID, moment(e.Time), e.Type, e.Code, e.Reason, e.Object, e.Message, e.Node, object(e.Fields)}
}

func eventName(e api.Event) string { return fmt.Sprint(e.ID) }

func objectText(o api.Object) string { return plain(o.Kind + "/" + o.Name) }

var eventColumns = []column[api.Event]{
	{title: "ID", wide: true, text: func(_ *printer, e api.Event) string { return fmt.Sprint(e.ID) }},
	{title: "AGE", text: func(p *printer, e api.Event) string { return age(p.now, e.Time) }},
	{title: "TYPE", text: func(_ *printer, e api.Event) string { return string(e.Type) }},
	{title: "CODE", wide: true, text: func(_ *printer, e api.Event) string { return string(e.Code) }},
	{title: "REASON", text: func(_ *printer, e api.Event) string { return e.Reason }},
	{title: "OBJECT", text: func(_ *printer, e api.Event) string { return objectText(e.Object) }},
	{title: "MESSAGE", text: func(_ *printer, e api.Event) string { return e.Message }},
}
