package blockstore

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ipfs/boxo/exchange"

	"github.com/cloudless-project/cloudless/api"
)

// Fetch writes a blob to w, in order, from the nodes in from that hold it and,
// when they do not deliver, from those that Config.Providers names. Every leaf
// is verified before it is written; that the whole has the blob's digest is for
// w to check. It returns *api.Error: KindUnavailable when no node delivered
// anything for Config.Stall, KindInvalid for a record that contradicts itself.
// What w got before an error must be thrown away.
func (x *Exchange) Fetch(ctx context.Context, blob api.Blob, from []api.NodeID, w io.Writer) error {
	p, err := parse(blob)
	if err != nil {
		return err
	}
	err = x.fetch(ctx, p, from, w)
	result := "ok"
	switch {
	case ctx.Err() != nil:
		result = "cancelled"
	case err != nil:
		result = "failed"
	}
	x.metrics.fetches.WithLabelValues(result).Inc()
	return err
}

func (x *Exchange) fetch(ctx context.Context, blob *provided, from []api.NodeID, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(x.ctx, cancel)()
	f := &fetch{
		x: x, blob: blob, w: w,
		session: x.client.NewSession(ctx),
		sources: newSources(x, blob.digest, from),
		flights: make(map[hash]*flight),
		arrived: make(chan arrival, x.cfg.MaxInFlight),
		pace:    newPace(x.cfg.MaxInFlight),
	}
	defer f.close()
	defer cancel()
	if len(f.sources.list) == 0 {
		f.sources.add(x.cfg.Providers(blob.digest))
	}
	if len(f.sources.list) == 0 && len(blob.leaves) > 0 {
		return api.Errorf(api.KindUnavailable, "no other node is known to have blob %s", blob.digest)
	}
	return f.run(ctx)
}

// fetch is one blob on its way: leaves head … next-1 are requested or wait for
// their turn. All of it belongs to the goroutine of run.
type fetch struct {
	x       *Exchange
	blob    *provided
	w       io.Writer
	session exchange.Fetcher
	sources *sources

	head, next int              // next leaf to write, next leaf to request
	flights    map[hash]*flight // one per distinct leaf in head … next-1
	arrived    chan arrival
	pace       pace
	progress   time.Time // of the last leaf that came or was written
	refreshed  time.Time
	wg         sync.WaitGroup
}

// flight is a requested leaf. Bitswap can lose one of two concurrent requests
// of a session for the same block, so a leaf that occurs twice shares one.
type flight struct {
	places int // how many leaves of head … next-1 it stands for
	since  time.Time
	data   []byte // nil until it arrived
}

type arrival struct {
	leaf hash
	data []byte
}

func (f *fetch) run(ctx context.Context) error {
	f.progress = time.Now()
	f.refreshed = f.progress
	tick := time.NewTicker(f.x.cfg.Patience)
	defer tick.Stop()
	f.sources.start(ctx)
	for f.head < len(f.blob.leaves) {
		if err := ctx.Err(); err != nil {
			return err // not left to chance when other cases are ready too
		}
		var permit chan<- struct{} // nil blocks: enough in flight
		if f.next < len(f.blob.leaves) && f.next-f.head < f.pace.window {
			permit = f.x.permits
		}
		select {
		case permit <- struct{}{}:
			f.request(ctx)
		case a := <-f.arrived:
			if err := f.receive(ctx, a); err != nil {
				return err
			}
		case r := <-f.sources.connected:
			f.sources.onConnected(ctx, r)
		case <-f.sources.wake:
			f.sources.check(ctx)
		case now := <-tick.C:
			if err := f.tick(ctx, now); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// request asks for the next leaf; the caller has taken a permit.
func (f *fetch) request(ctx context.Context) {
	h := f.blob.leaves[f.next]
	f.next++
	f.x.metrics.inflight.Inc()
	if fl := f.flights[h]; fl != nil {
		fl.places++
		return
	}
	f.flights[h] = &flight{places: 1, since: time.Now()}
	f.x.gate.ask(h)
	f.wg.Go(func() {
		b, err := f.session.GetBlock(ctx, h.cid())
		if err != nil {
			return // the context or the exchange has ended
		}
		select {
		case f.arrived <- arrival{h, b.RawData()}:
		case <-ctx.Done():
		}
	})
}

// receive keeps a leaf and writes what is complete from head on.
func (f *fetch) receive(ctx context.Context, a arrival) error {
	fl := f.flights[a.leaf]
	fl.data = a.data
	f.pace.arrived(time.Since(fl.since))
	f.x.metrics.fetched.Add(float64(len(a.data)))
	for f.head < f.next {
		if err := ctx.Err(); err != nil {
			return err // a window of leaves may have waited for this one
		}
		h := f.blob.leaves[f.head]
		fl := f.flights[h]
		if fl.data == nil {
			break
		}
		if want := leafSize(f.blob.size, f.head); len(fl.data) != want {
			return api.Errorf(api.KindInvalid, "leaf %d of blob %s has %d bytes, not %d", f.head, f.blob.digest, len(fl.data), want)
		}
		if _, err := f.w.Write(fl.data); err != nil {
			return fmt.Errorf("write blob %s: %w", f.blob.digest, err)
		}
		if fl.places--; fl.places == 0 {
			delete(f.flights, h)
		}
		f.head++
		f.release(1)
	}
	f.progress = time.Now() // after the writes: a slow disk is not a silent node
	return nil
}

// tick looks at how long nothing came and does something about it.
func (f *fetch) tick(ctx context.Context, now time.Time) error {
	if f.head == f.next {
		f.progress = now // nothing requested: other fetches have all permits
		return nil
	}
	silent := now.Sub(f.progress)
	switch {
	case silent >= f.x.cfg.Stall:
		return api.Errorf(api.KindUnavailable, "no node delivered blob %s for %v (%d of %d MiB here; %s)",
			f.blob.digest, f.x.cfg.Stall, f.head, len(f.blob.leaves), f.sources).
			WithHint("is a node that has the image online? cloudless network peers shows who is in reach")
	case silent < f.x.cfg.Patience:
	case f.sources.widen(ctx):
	case now.Sub(later(f.refreshed, f.progress)) >= 5*f.x.cfg.Patience:
		f.refreshed = now
		f.sources.refresh(ctx)
	}
	return nil
}

func (f *fetch) release(n int) {
	for range n {
		<-f.x.permits
	}
	f.x.metrics.inflight.Sub(float64(n))
}

// close returns what the fetch holds; its context has ended.
func (f *fetch) close() {
	f.wg.Wait()
	f.sources.close()
	f.release(f.next - f.head)
}

// pace sizes the window of a fetch. On a fast path many leaves in flight fill
// the round trips; on a slow uplink they would queue for so long at the sender
// that its silence cannot be told from its death.
type pace struct{ window, max int }

func newPace(permits int) pace {
	// A quarter of the permits is out of reach for one fetch, so that one which
	// stalls does not stop the others.
	most := max(permits*3/4, 1)
	return pace{window: min(6, most), max: most}
}

func (p *pace) arrived(took time.Duration) {
	switch {
	case took < time.Second:
		p.window = min(p.window+1, p.max)
	case took > 3*time.Second:
		p.window = max(p.window-1, min(2, p.max))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
