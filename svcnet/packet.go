package svcnet

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxPacket is the longest UDP payload in IPv4.
const maxPacket = 65507

// packets carries datagrams. Reading and writing may overlap, but neither
// overlaps itself. Close ends both.
type packets interface {
	readPacket() ([]byte, error) // valid until the next call
	writePacket(p []byte) error
	Close() error
}

// framed carries datagrams over a stream, each behind its 16-bit length.
type framed struct {
	conn   net.Conn
	in     *bufio.Reader
	inBuf  []byte // grown to the longest datagram seen
	outBuf []byte
}

func newFramed(conn net.Conn) *framed {
	return &framed{conn: conn, in: bufio.NewReaderSize(conn, smallBuffer)}
}

func (f *framed) readPacket() ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(f.in, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > maxPacket {
		return nil, errPacket
	}
	f.inBuf = slices.Grow(f.inBuf[:0], n)[:n]
	_, err := io.ReadFull(f.in, f.inBuf)
	return f.inBuf, err
}

var errPacket = errors.New("datagram longer than UDP allows")

func (f *framed) writePacket(p []byte) error {
	f.outBuf = binary.BigEndian.AppendUint16(f.outBuf[:0], uint16(len(p)))
	f.outBuf = append(f.outBuf, p...)
	_, err := f.conn.Write(f.outBuf) // in one piece: a packet is one write on the mesh
	return err
}

func (f *framed) Close() error { return f.conn.Close() }

// socket is a connected UDP socket.
type socket struct {
	net.Conn
	buf [maxPacket]byte
}

func newSocket(conn net.Conn) *socket { return &socket{Conn: conn} }

func (s *socket) readPacket() ([]byte, error) {
	n, err := s.Read(s.buf[:])
	return s.buf[:n], err
}

func (s *socket) writePacket(p []byte) error {
	_, err := s.Write(p)
	return err
}

// relay carries datagrams both ways until one side fails, ctx ends, or nothing
// moved for the idle time. It closes both.
func relay(ctx context.Context, client, backend packets, idle time.Duration, t *tally) {
	end := sync.OnceFunc(func() {
		_ = client.Close()
		_ = backend.Close()
	})
	defer end()
	defer context.AfterFunc(ctx, end)()
	var moved atomic.Bool
	watch := newIdleWatch(idle, &moved, end)
	defer watch.stop()

	done := make(chan struct{})
	go func() {
		defer close(done)
		defer end()
		carryPackets(backend, client, &moved, t.sent)
	}()
	carryPackets(client, backend, &moved, t.received)
	end()
	<-done
}

func carryPackets(dst, src packets, moved *atomic.Bool, bytes prometheus.Counter) {
	for {
		p, err := src.readPacket()
		if err != nil {
			return
		}
		moved.Store(true)
		if err := dst.writePacket(p); err != nil {
			return
		}
		bytes.Add(float64(len(p)))
	}
}

// idleWatch calls end when a whole idle time passed without movement.
type idleWatch struct {
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

func newIdleWatch(idle time.Duration, moved *atomic.Bool, end func()) *idleWatch {
	w := new(idleWatch)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(idle, func() {
		if !moved.Swap(false) {
			end()
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.stopped {
			w.timer.Reset(idle)
		}
	})
	return w
}

func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
