package node

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/internal/retry"
)

// maxErrands bounds how many errands wait for their time, and how many more
// for one of those to be done.
const maxErrands = 64

// errands are what the daemon does a little later. None is done before run is
// called or after it has returned: what an errand uses must be built before
// the part that runs them, and is closed after it.
type errands chan errand

type errand struct {
	due time.Time
	do  func(context.Context)
}

func newErrands() errands { return make(errands, maxErrands) }

// after has do called when so much time has passed, with a context that ends
// with the daemon. It does not block; false means that there are too many
// errands already, and that this one will not be done.
func (e errands) after(wait time.Duration, do func(context.Context)) bool {
	select {
	case e <- errand{time.Now().Add(wait), do}:
		return true
	default:
		return false
	}
}

// run does errands until ctx ends; those that are not due by then are not done.
func (e errands) run(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(maxErrands)
	for {
		select {
		case next := <-e:
			group.Go(func() error {
				if retry.Sleep(ctx, time.Until(next.due)) == nil {
					next.do(ctx)
				}
				return nil
			})
		case <-ctx.Done():
			return group.Wait()
		}
	}
}
