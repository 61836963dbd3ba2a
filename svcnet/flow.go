package svcnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// flow is the way of one connection between two nodes: the stream that it
// begins on, and the line that it may move to. It has one reader and one writer.
type flow struct {
	Conn // the stream
	ctx  context.Context
	v    *mover
	key  flowKey

	mu       sync.Mutex
	patience int // how often it must still be bulk; 0: it does not ask
	carried  int // bytes, both ways, since
	since    time.Time
	moving   bool          // a line is being agreed on
	settled  chan struct{} // closed when moving ends
	line     Conn          // nil until agreed on
	broken   error         // why the move has broken the flow
	ended    bool          // CloseWrite was called
	shut     func(Conn)    // how the flow was closed; nil while it is open

	out, in Conn // of the writer and the reader: the line, once they are there
}

// begin starts to move, unless something speaks against it.
func (f *flow) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.beginLocked()
}

func (f *flow) beginLocked() bool {
	if f.moving || f.line != nil || f.shut != nil {
		return false
	}
	f.moving = true
	return true
}

// stay ends a move that the peer knows nothing of, or has declined.
func (f *flow) stay() { f.settle(nil, nil) }

// fail ends a move of which nobody knows how far it got. What has caused it is not
// wrapped: an io.EOF of the line must not be taken for one of the flow.
func (f *flow) fail(cause error) {
	f.settle(nil, fmt.Errorf("move flow to a line: %v", cause))
	_ = f.Reset()
}

// move ends a move that both have agreed on. What this end has done before it
// knew of the line is done to the line as well: the peer waits for it there.
func (f *flow) move(line Conn) {
	ended, shut := f.settle(line, nil)
	if ended {
		_ = line.CloseWrite()
	}
	if shut != nil {
		shut(line)
	}
}

func (f *flow) settle(line Conn, broken error) (ended bool, shut func(Conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moving, f.line, f.broken = false, line, broken
	close(f.settled)
	f.settled = make(chan struct{})
	return f.ended, f.shut
}

// count notices that the flow is bulk.
func (f *flow) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.carried += n; f.patience == 0 || f.carried < bulkBytes {
		return
	}
	quick := time.Since(f.since) <= bulkWithin
	f.carried, f.since = 0, time.Now()
	if !quick {
		return
	}
	if f.patience--; f.patience == 0 && f.beginLocked() {
		go f.v.ask(f)
	}
}

func (f *flow) Write(b []byte) (int, error) {
	if f.out != nil {
		return f.out.Write(b)
	}
	f.mu.Lock()
	line, broken := f.line, f.broken
	f.mu.Unlock()
	switch {
	case broken != nil:
		return 0, broken
	case line == nil:
		n, err := f.Conn.Write(b)
		f.count(n)
		return n, err
	}
	if err := f.Conn.CloseWrite(); err != nil {
		return 0, err
	}
	f.out = line
	return line.Write(b)
}

func (f *flow) Read(b []byte) (int, error) {
	if f.in != nil {
		return f.in.Read(b)
	}
	n, err := f.Conn.Read(b)
	f.count(n)
	switch {
	case !errors.Is(err, io.EOF):
		return n, err
	case n > 0:
		return n, nil // QUIC brings the end together with the last bytes, and it may not be the end of the flow
	}
	if f.in, err = f.next(); err != nil {
		return 0, err
	}
	return f.in.Read(b)
}

// next returns what follows the end of the stream: the line, or io.EOF.
func (f *flow) next() (Conn, error) {
	for {
		f.mu.Lock()
		moving, settled, line, broken := f.moving, f.settled, f.line, f.broken
		f.mu.Unlock()
		switch {
		case broken != nil:
			return nil, broken
		case line != nil:
			return line, nil
		case !moving:
			return nil, io.EOF
		}
		<-settled
	}
}

// CloseWrite ends what the flow sends, wherever the peer looks for the end.
func (f *flow) CloseWrite() error {
	f.mu.Lock()
	f.ended = true
	line := f.line
	f.mu.Unlock()
	var err error
	if f.out == nil {
		err = f.Conn.CloseWrite()
	}
	if line != nil {
		err = errors.Join(err, line.CloseWrite())
	}
	return err
}

// Close ends the flow; a line that is still being agreed on ends in the same way.
func (f *flow) Close() error {
	line := f.end(leave)
	err := f.Conn.Close()
	if line != nil {
		err = errors.Join(err, line.Close())
	}
	return err
}

// Reset breaks the flow off, so that the peer sees an error.
func (f *flow) Reset() error {
	line := f.end(func(line Conn) { reset(line) })
	reset(f.Conn)
	if line != nil {
		reset(line)
	}
	return nil
}

func (f *flow) end(shut func(Conn)) Conn {
	f.v.forget(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut == nil {
		f.shut = shut
	}
	return f.line
}

// leave closes a line over which nothing was continued, after the peer has: an
// end that is on its way to the peer would be lost if what the peer sent were
// left unread.
func leave(line Conn) {
	_ = line.CloseWrite()
	_ = line.SetReadDeadline(time.Now().Add(tokenTimeout))
	_, _ = io.Copy(io.Discard, line)
	_ = line.Close()
}
