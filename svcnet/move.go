package svcnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// A flow begins on a stream, which opens without a round trip and costs nothing
// while it idles. One that turns out to carry a lot moves onto a line of its
// own when its nodes can open one. Neither the client nor the replica notices,
// and no byte is framed for it:
//
//  1. A node opens a line and sends the flow's token. The other one finds the
//     flow by peer and token and answers with a status byte. Both go on with
//     the stream meanwhile.
//  2. From then on each end, when it next has bytes to send, ends its half of
//     the stream and continues on the line.
//  3. A reader that comes to the end of the stream, and knows of the line, goes
//     on reading there.
//
// The answer comes before anything is continued, so a reader knows of the line
// before it can see an end that is none. When the answer gets lost nobody can
// tell what was continued, and the flow is cut.
const (
	// A flow is bulk when it carries this much within the time.
	bulkBytes  = 4 << 20
	bulkWithin = 10 * time.Second

	// How often in a row a flow has to be bulk before its node asks for a line.
	// The serving node is later: it steps in where the dialing one cannot reach
	// it, because it is behind a NAT, say.
	clientPatience = 1
	serverPatience = 4

	tokenTimeout  = 5 * time.Second  // to say what a line is for
	answerTimeout = 30 * time.Second // then the line is dead, and the stream most likely too
)

// token names a flow between two nodes. The zero token names none.
type token [16]byte

func newToken() (t token) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

type flowKey struct {
	peer api.NodeID
	token
}

// mover knows the flows that can move.
type mover struct {
	cfg *Config
	m   *metrics

	mu    sync.Mutex
	flows map[flowKey]*flow
}

func newMover(cfg *Config, m *metrics) *mover {
	return &mover{cfg: cfg, m: m, flows: make(map[flowKey]*flow)}
}

// track makes a flow of a stream that has a token. It is forgotten when it is
// closed. What has none, or a taken one, stays as it is.
func (v *mover) track(ctx context.Context, stream Conn, key flowKey, patience int) Conn {
	if v.cfg.Lines == nil || key.token == (token{}) {
		return stream
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, taken := v.flows[key]; taken {
		return stream
	}
	f := &flow{
		Conn: stream, ctx: ctx, v: v, key: key, patience: patience,
		settled: make(chan struct{}), since: time.Now(),
	}
	v.flows[key] = f
	return f
}

func (v *mover) find(k flowKey) *flow {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.flows[k]
}

func (v *mover) forget(f *flow) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.flows[f.key] == f {
		delete(v.flows, f.key)
	}
}

// ask opens a line for a flow that has begun to move, and agrees with the peer
// to continue there.
func (v *mover) ask(f *flow) {
	line, err := v.cfg.Lines.DialLine(f.ctx, f.key.peer)
	if err != nil {
		v.m.moves.WithLabelValues("no_line").Inc()
		v.cfg.Log.Debug("a flow stays on its stream", zap.String("peer", string(f.key.peer)), zap.Error(err))
		f.stay()
		return
	}
	answer, err := propose(f.ctx, line, f.key.token)
	switch {
	case err != nil:
		v.m.moves.WithLabelValues("broken").Inc()
		reset(line)
		f.fail(err)
	case answer != statusOK:
		v.m.moves.WithLabelValues("refused").Inc()
		_ = line.Close()
		f.stay()
	default:
		v.m.moves.WithLabelValues("moved").Inc()
		f.move(line)
	}
}

// propose sends a token and waits for the answer.
func propose(ctx context.Context, line Conn, t token) (status, error) {
	stop := context.AfterFunc(ctx, func() { reset(line) })
	defer stop()
	_ = line.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := line.Write(t[:]); err != nil {
		return 0, fmt.Errorf("send token: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(line, answer[:]); err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	return status(answer[0]), line.SetDeadline(time.Time{})
}

// serve takes a line that a peer has opened, for the flow that the peer names.
func (v *mover) serve(line Conn, peer api.NodeID) {
	_ = line.SetDeadline(time.Now().Add(tokenTimeout))
	var t token
	if _, err := io.ReadFull(line, t[:]); err != nil {
		reset(line)
		return
	}
	f := v.find(flowKey{peer, t})
	if f == nil || !f.begin() {
		_, _ = line.Write([]byte{byte(statusNotHere)})
		_ = line.Close()
		return
	}
	_, err := line.Write([]byte{byte(statusOK)})
	if err = errors.Join(err, line.SetDeadline(time.Time{})); err != nil {
		reset(line)
		f.fail(err)
		return
	}
	f.move(line)
}
