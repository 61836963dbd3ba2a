package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

const (
	// pullWithin bounds a question for revocations, and its answer.
	pullWithin = 10 * time.Second
	// askWithin bounds the question alone.
	askWithin = 3 * time.Second
	// maxPull is how many bytes an answer may have: every revocation there can
	// be, with the longest reason.
	maxPull = state.MaxRevocations * 1 << 10
	// parallelPulls bounds how many questions are asked, and answered, at once.
	parallelPulls = 4
)

// noteAdmitted has a node that was admitted just now asked for revocations.
// When many come at once some are not asked; the others know the same.
func (d *daemon) noteAdmitted(m api.Member) {
	if !m.Has(api.RoleNode) {
		return
	}
	select {
	case d.admitted <- m.ID:
	default:
	}
}

// exchangeRevocations asks every node that is met, and answers those who ask.
func (d *daemon) exchangeRevocations(ctx context.Context) error {
	l, err := d.mesh.Listen(api.ProtoRevocations, api.RoleNode)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	for range parallelPulls {
		group.Go(func() { d.pullRevocations(ctx) })
		group.Go(func() { d.answerPulls(l) })
	}
	<-ctx.Done()
	return nil
}

func (d *daemon) pullRevocations(ctx context.Context) {
	for {
		select {
		case from := <-d.admitted:
			if err := d.pullFrom(ctx, from); err != nil && ctx.Err() == nil {
				d.log.Debug("a node was not asked for revocations", zap.String("peer", string(from)), zap.Error(err))
			}
		case <-ctx.Done():
			return
		}
	}
}

func (d *daemon) pullFrom(ctx context.Context, from api.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, pullWithin)
	defer cancel()
	conn, err := d.mesh.Dial(ctx, from, api.ProtoRevocations)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(pullWithin))
	_, digest := d.admission.revoked.signed()
	if _, err := conn.Write(digest[:]); err != nil {
		return err
	}
	_ = conn.CloseWrite()
	list, err := readRevocations(conn, func(r api.Revocation) bool { return len(d.proven(from, []api.Revocation{r})) == 1 })
	d.revoke(list, fromNode)
	if err != nil {
		_ = conn.Reset()
	}
	return err
}

// readRevocations reads one JSON document after the other. It stops at the
// first that does not prove itself, and returns those before.
func readRevocations(r io.Reader, proven func(api.Revocation) bool) (list []api.Revocation, err error) {
	dec := json.NewDecoder(io.LimitReader(r, maxPull))
	for len(list) < state.MaxRevocations {
		var one api.Revocation
		switch err := dec.Decode(&one); {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return list, fmt.Errorf("read revocations: %w", err)
		case !proven(one):
			return list, fmt.Errorf("read revocations: that of %q proves nothing", one.ID)
		}
		list = append(list, one)
	}
	return list, nil
}

func (d *daemon) answerPulls(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		if err := d.answerPull(conn); err != nil {
			d.log.Debug("revocations were not told", zap.Error(err))
			if c, ok := conn.(p2p.Conn); ok {
				_ = c.Reset()
			}
		}
		conn.Close()
	}
}

// answerPull sends all that are known to a node that does not know the same.
func (d *daemon) answerPull(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(askWithin))
	var theirs [sha256.Size]byte
	if _, err := io.ReadFull(conn, theirs[:]); err != nil {
		return fmt.Errorf("read digest: %w", err)
	}
	list, mine := d.admission.revoked.signed()
	if mine == theirs {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(pullWithin))
	enc := json.NewEncoder(conn)
	for _, r := range list {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("send revocations: %w", err)
		}
	}
	return nil
}
