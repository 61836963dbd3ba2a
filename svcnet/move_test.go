//go:build linux

package svcnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// lineFunc is a LineDialer.
type lineFunc func(context.Context, api.NodeID) (Conn, error)

func (f lineFunc) DialLine(ctx context.Context, to api.NodeID) (Conn, error) { return f(ctx, to) }

var errNoLines = errors.New("no line to this node")

func noLines(context.Context, api.NodeID) (Conn, error) { return nil, errNoLines }

// twoNodes are the movers of two nodes, a and b, and a flow between them.
type twoNodes struct {
	a, b      *mover
	near, far Conn // ends of the flow, at a and at b
}

// linesTo dials lines that a mover serves.
func linesTo(t *testing.T, to **mover, as api.NodeID) lineFunc {
	return func(context.Context, api.NodeID) (Conn, error) {
		dialled, accepted := tcpPair(t)
		go (*to).serve(accepted, as)
		return dialled, nil
	}
}

// newTwoNodes makes a flow that a opened to b. The dialers default to lines that work.
func newTwoNodes(t *testing.T, fromA, fromB lineFunc) *twoNodes {
	t.Helper()
	n := new(twoNodes)
	if fromA == nil {
		fromA = linesTo(t, &n.b, "a")
	}
	if fromB == nil {
		fromB = linesTo(t, &n.a, "b")
	}
	n.a = newMover(&Config{Lines: fromA, Log: zap.NewNop()}, testMetrics(t))
	n.b = newMover(&Config{Lines: fromB, Log: zap.NewNop()}, testMetrics(t))
	s1, s2 := tcpPair(t)
	for _, s := range []Conn{s1, s2} { // a busy machine with the race detector takes its time
		_ = s.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	name := newToken()
	n.near = n.a.track(t.Context(), plain{s1}, flowKey{"b", name}, clientPatience)
	n.far = n.b.track(t.Context(), plain{s2}, flowKey{"a", name}, serverPatience)
	return n
}

// send writes n random bytes in pieces, ends what it sends, and tells what it sent.
func send(c Conn, n int) <-chan []byte {
	sent := make(chan []byte, 1)
	go func() {
		data := make([]byte, n)
		_, _ = rand.Read(data)
		for rest := data; len(rest) > 0; {
			piece := rest[:min(len(rest), 100_000)]
			if _, err := c.Write(piece); err != nil {
				_ = c.(*flow).Reset()
				break
			}
			rest = rest[len(piece):]
		}
		_ = c.CloseWrite()
		sent <- data
	}()
	return sent
}

// exchange sends both ways at once and checks that all of it arrives.
func (n *twoNodes) exchange(t *testing.T, up, down int) {
	t.Helper()
	type got struct {
		data []byte
		err  error
	}
	read := func(c Conn) <-chan got {
		out := make(chan got, 1)
		go func() {
			data, err := io.ReadAll(c)
			out <- got{data, err}
		}()
		return out
	}
	sentUp, sentDown := send(n.near, up), send(n.far, down)
	atFar, atNear := read(n.far), read(n.near)
	for _, way := range []struct {
		name string
		sent <-chan []byte
		got  <-chan got
	}{{"up", sentUp, atFar}, {"down", sentDown, atNear}} {
		want, have := <-way.sent, <-way.got
		if have.err != nil || !bytes.Equal(have.data, want) {
			t.Errorf("%s: %d of %d bytes, %v", way.name, len(have.data), len(want), have.err)
		}
	}
	_ = n.near.Close()
	_ = n.far.Close()
	if left := len(n.a.flows) + len(n.b.flows); left != 0 {
		t.Errorf("%d closed flows are still known", left)
	}
}

func (n *twoNodes) awaitMove(t *testing.T) {
	t.Helper()
	eventually(t, "the flow has moved", func() error {
		if near, far := moved(n.near), moved(n.far); !near || !far {
			return fmt.Errorf("moved: near %t, far %t", near, far)
		}
		return nil
	})
}

func moved(c Conn) bool {
	f := c.(*flow)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.line != nil
}

func TestBulkFlowMovesToALine(t *testing.T) {
	n := newTwoNodes(t, nil, noLines)
	n.exchange(t, 6*bulkBytes, 6*bulkBytes)
	if !moved(n.near) || !moved(n.far) {
		t.Errorf("moved: near %t, far %t", moved(n.near), moved(n.far))
	}
}

func TestSmallFlowStaysOnItsStream(t *testing.T) {
	n := newTwoNodes(t, func(context.Context, api.NodeID) (Conn, error) {
		t.Error("a line was asked for")
		return nil, errNoLines
	}, noLines)
	n.exchange(t, bulkBytes/2-1, bulkBytes/2)
}

// Whenever a flow ends while it moves, nothing is lost and nothing hangs.
func TestFlowsEndAtAnyMomentOfTheirMove(t *testing.T) {
	for _, up := range []int{bulkBytes - 1, bulkBytes, bulkBytes + 1, bulkBytes + 200_000, 2 * bulkBytes} {
		for _, down := range []int{0, 1, 3 * bulkBytes} {
			t.Run(fmt.Sprintf("%d up, %d down", up, down), func(t *testing.T) {
				newTwoNodes(t, nil, nil).exchange(t, up, down)
			})
		}
	}
}

// holdLines lets no line be dialled before release is called. dialling is closed when one is wanted.
func (n *twoNodes) holdLines() (dialling <-chan struct{}, release func()) {
	wanted, hold := make(chan struct{}), make(chan struct{})
	open := n.a.cfg.Lines
	n.a.cfg.Lines = lineFunc(func(ctx context.Context, to api.NodeID) (Conn, error) {
		close(wanted)
		<-hold
		return open.DialLine(ctx, to)
	})
	return wanted, func() { close(hold) }
}

func TestLineThatComesWhenOneDirectionHasEnded(t *testing.T) {
	n := newTwoNodes(t, nil, noLines)
	dialling, release := n.holdLines()
	up := send(n.near, bulkBytes)
	got, err := io.ReadAll(n.far)
	if err != nil || !bytes.Equal(got, <-up) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	<-dialling
	release()
	n.awaitMove(t)
	down := send(n.far, bulkBytes)
	got, err = io.ReadAll(n.near)
	if err != nil || !bytes.Equal(got, <-down) {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
}

func TestLineThatComesWhenOneEndHasClosed(t *testing.T) {
	const more = 1000
	n := newTwoNodes(t, nil, noLines)
	dialling, release := n.holdLines()
	_ = n.far.CloseWrite()
	if _, err := n.near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	up := send(n.near, bulkBytes+more)
	if _, err := io.CopyN(io.Discard, n.far, bulkBytes); err != nil {
		t.Fatal(err)
	}
	want := <-up
	<-dialling
	_ = n.near.Close() // all is sent, all is read; the other end does not know yet
	release()
	n.awaitMove(t)
	got, err := io.ReadAll(n.far)
	if err != nil || !bytes.Equal(got, want[bulkBytes:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestRefusedFlowStays(t *testing.T) {
	var nobody *mover
	n := newTwoNodes(t, linesTo(t, &nobody, "a"), noLines)
	nobody = newMover(&Config{Log: zap.NewNop()}, testMetrics(t)) // knows no flow
	n.exchange(t, 4*bulkBytes, 0)
	if moved(n.near) || moved(n.far) {
		t.Error("the flow moved to a line that was refused")
	}
}

// The serving node steps in when the dialing one finds no line.
func TestServingNodeOpensTheLine(t *testing.T) {
	n := newTwoNodes(t, noLines, nil)
	n.exchange(t, 8*bulkBytes, 0)
	if !moved(n.near) || !moved(n.far) {
		t.Errorf("moved: near %t, far %t", moved(n.near), moved(n.far))
	}
}

// When the answer is lost, the other end may have continued on the line: the flow
// must not look complete.
func TestLostAnswerBreaksTheFlow(t *testing.T) {
	arrived, over := context.WithCancel(t.Context())
	defer over()
	n := newTwoNodes(t, func(context.Context, api.NodeID) (Conn, error) {
		dialled, accepted := tcpPair(t)
		go func() {
			_, _ = io.ReadFull(accepted, make([]byte, len(token{})))
			<-arrived.Done() // what is under way would be lost with the flow
			_ = accepted.Close()
		}()
		return dialled, nil
	}, noLines)
	up := send(n.near, bulkBytes)
	if _, err := io.CopyN(io.Discard, n.far, bulkBytes); err != nil {
		t.Fatal(err)
	}
	<-up // now a line is asked for
	over()
	_ = n.far.(*flow).Conn.Close()
	if _, err := n.near.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the flow ends with %v", err)
	}
}

// A line that breaks breaks the flow, at both ends.
func TestBrokenLineBreaksTheFlow(t *testing.T) {
	n := newTwoNodes(t, nil, noLines)
	go func() { _, _ = n.near.Write(make([]byte, bulkBytes)) }()
	if _, err := io.CopyN(io.Discard, n.far, bulkBytes); err != nil {
		t.Fatal(err)
	}
	n.awaitMove(t)
	if _, err := n.near.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	reset(n.near)
	if _, err := io.ReadAll(n.far); err == nil {
		t.Error("a broken flow looks complete")
	}
}

func TestLineForNobodyIsRefused(t *testing.T) {
	n := newTwoNodes(t, nil, nil)
	key := n.near.(*flow).key
	for what, c := range map[string]struct {
		peer api.NodeID
		name token
	}{
		"the token of another peer's flow": {"c", key.token},
		"an unknown token":                 {"a", newToken()},
		"no token":                         {"a", token{}},
	} {
		line, accepted := tcpPair(t)
		go n.b.serve(accepted, c.peer)
		answer, err := propose(t.Context(), line, c.name)
		if err != nil || answer != statusNotHere {
			t.Errorf("%s: %s, %v", what, answer, err)
		}
	}
	if moved(n.far) {
		t.Error("the flow moved")
	}
}

// lastWord is a stream whose end comes together with its last bytes, as QUIC's does.
type lastWord struct {
	Conn
	word []byte
}

func (c *lastWord) Read(b []byte) (int, error) {
	n := copy(b, c.word)
	if c.word = c.word[n:]; len(c.word) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func TestEndOfTheStreamMayComeWithBytes(t *testing.T) {
	n := newTwoNodes(t, noLines, noLines)
	f := n.near.(*flow)
	f.Conn = &lastWord{Conn: f.Conn, word: []byte("on the stream, ")}
	ours, theirs := tcpPair(t)
	if !f.begin() {
		t.Fatal("the flow does not begin to move")
	}
	f.move(ours)
	if _, err := io.WriteString(theirs, "on the line"); err != nil {
		t.Fatal(err)
	}
	_ = theirs.CloseWrite()
	if got, err := io.ReadAll(f); string(got) != "on the stream, on the line" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
