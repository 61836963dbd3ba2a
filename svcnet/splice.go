package svcnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// A direction starts with a small buffer and takes a large one while it
	// keeps it full, so that thousands of idle connections cost little memory
	// and a busy one costs few system calls.
	smallBuffer = 4 << 10

	// On a stream the mesh sends frames of 64 KiB, 12 bytes of which are their
	// header. A buffer that is no multiple of the rest ends every full read in a
	// frame of a few bytes, which costs as much as a large one. On a line it is
	// all the same, and four of them wake the other side half as often as two.
	largeBuffer = 4 * (64<<10 - 12)

	// After this many reads that a small buffer would have held, the large one
	// goes back.
	shrinkAfter = 16

	// Bytes between two updates of the counters where the kernel does the copying.
	spliceChunk = 4 << 20
)

var (
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// splice carries bytes both ways until both sides have ended theirs, or one
// direction failed or ctx ended; then both connections are cut. It closes both.
func splice(ctx context.Context, client, backend Conn, t *tally) error {
	defer client.Close()
	defer backend.Close()
	cut := sync.OnceFunc(func() {
		reset(client)
		reset(backend)
	})
	defer context.AfterFunc(ctx, cut)()

	sent := make(chan error, 1)
	go func() { sent <- oneWay(backend, client, t.sent, cut) }()
	err := oneWay(client, backend, t.received, cut)
	return errors.Join(err, <-sent)
}

// oneWay copies src to dst and then passes the end of src on. A failure cuts
// the flow, so that neither peer takes a broken stream for a complete one.
func oneWay(dst, src Conn, n prometheus.Counter, cut func()) error {
	err := copyBytes(dst, src, n)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		cut()
	}
	return err
}

func copyBytes(dst, src Conn, n prometheus.Counter) error {
	d, ok1 := dst.(*net.TCPConn)
	s, ok2 := src.(*net.TCPConn)
	if ok1 && ok2 {
		return copyTCP(d, s, n)
	}
	return copyStream(dst, src, n)
}

// copyTCP lets the kernel move the bytes (splice(2) on Linux).
func copyTCP(dst, src *net.TCPConn, n prometheus.Counter) error {
	for {
		copied, err := dst.ReadFrom(&io.LimitedReader{R: src, N: spliceChunk})
		n.Add(float64(copied))
		if err != nil || copied < spliceChunk {
			return err
		}
	}
}

func copyStream(dst io.Writer, src io.Reader, n prometheus.Counter) error {
	small := smallPool.Get().(*[smallBuffer]byte)
	defer smallPool.Put(small)
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			largePool.Put(large)
		}
	}()
	buf, idle := small[:], 0
	for {
		k, err := src.Read(buf)
		if k > 0 {
			if _, werr := dst.Write(buf[:k]); werr != nil {
				return werr
			}
			n.Add(float64(k))
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch {
		case large == nil && k == smallBuffer:
			large = largePool.Get().(*[largeBuffer]byte)
			buf, idle = large[:], 0
		case large != nil && k > smallBuffer:
			idle = 0
		case large != nil:
			if idle++; idle == shrinkAfter {
				largePool.Put(large)
				buf, large = small[:], nil
			}
		}
	}
}

// reset closes a connection so that its peer sees an error, not an end. A
// stream of the mesh offers Reset; TCP sends RST when nothing may linger.
func reset(c net.Conn) {
	switch c := c.(type) {
	case *net.TCPConn:
		_ = c.SetLinger(0)
	case interface{ Reset() error }:
		_ = c.Reset()
	}
	_ = c.Close()
}
