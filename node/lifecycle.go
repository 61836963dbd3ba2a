package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// stopWithin bounds how long the parts may take to end, all together.
const stopWithin = 30 * time.Second

// part is something that runs until its context ends.
type part struct {
	name  string
	run   func(context.Context) error
	owner bool // what it was built from is closed by run alone
}

// lifecycle holds the parts of the daemon in the order of building: each
// stands on those before it, so they end in the opposite order.
type lifecycle []part

// owner adds a part that holds something open before it runs (a socket, a
// file): its run closes that when the context has ended, even before it began.
func (l *lifecycle) owner(name string, run func(context.Context) error) {
	*l = append(*l, part{name, run, true})
}

// loop adds a part that holds nothing before it runs.
func (l *lifecycle) loop(name string, run func(context.Context) error) {
	*l = append(*l, part{name, run, false})
}

// run runs every part until ctx ends or one of them fails. Then it ends them
// one after another, the last one first: the API drains and the agent stops
// while the mesh still carries what they have to say.
func (l lifecycle) run(ctx context.Context, log *zap.Logger, stopping func()) error {
	failed := make(chan error, len(l))
	type running struct {
		cancel context.CancelFunc
		ended  chan struct{}
	}
	all := make([]running, len(l))
	for i, p := range l {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		all[i] = running{cancel, make(chan struct{})}
		go func() {
			defer close(all[i].ended)
			if err := p.run(own); err != nil {
				failed <- fmt.Errorf("%s: %w", p.name, err)
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopping()
	deadline := time.After(stopWithin)
	late := false
	for i, r := range slices.Backward(all) {
		r.cancel()
		if late {
			continue
		}
		select {
		case <-r.ended:
		case <-deadline:
			late = true
			log.Warn("a part of the daemon does not end, leaving it behind", zap.String("part", l[i].name))
		}
	}
	if err == nil && !late {
		select {
		case err = <-failed: // of one that could not end well
		default:
		}
	}
	return err
}

// abandon closes what the parts hold that will never run, the last one first.
func (l lifecycle) abandon(log *zap.Logger) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range slices.Backward(l) {
		if !p.owner {
			continue
		}
		if err := p.run(ended); err != nil {
			log.Warn("closing after a failed start", zap.String("part", p.name), zap.Error(err))
		}
	}
}
