package p2p

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

const (
	// wireBuffer holds the largest Write, 256 KiB on a line, with what TLS adds
	// to it: what does not fit is a system call for a few bytes. Of what arrives
	// it takes as much as the kernel likes to hand over at once.
	wireBuffer = 264 << 10

	oneRecord = 1 << 10 // a Write of no more than this is one TLS record
	fullRead  = 8 << 10 // a read that fills this much means a busy connection ...
	idleRead  = 4 << 10 // ... until one brings less than this
)

var wirePool = sync.Pool{New: func() any { return new([wireBuffer]byte) }}

// tlsTransport is libp2p's TLS on top of a wire. crypto/tls makes a system call
// for every record of at most 16 KiB: the kernel then builds packets, wakes the
// receiver and acknowledges in pieces as small, and a bulk flow spends more
// time there than with encryption.
type tlsTransport struct{ *tls.Transport }

func newTLS(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*tlsTransport, error) {
	t, err := tls.New(id, key, muxers)
	if err != nil {
		return nil, err
	}
	return &tlsTransport{t}, nil
}

func (t *tlsTransport) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	return secure(insecure, func(c net.Conn) (sec.SecureConn, error) { return t.Transport.SecureInbound(ctx, c, p) })
}

func (t *tlsTransport) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	return secure(insecure, func(c net.Conn) (sec.SecureConn, error) { return t.Transport.SecureOutbound(ctx, c, p) })
}

func secure(insecure net.Conn, handshake func(net.Conn) (sec.SecureConn, error)) (sec.SecureConn, error) {
	w := &wire{Conn: insecure}
	c, err := handshake(w)
	if err != nil {
		return nil, err
	}
	return &secureConn{SecureConn: c, wire: w}, nil
}

// secureConn sends the records of one Write at once.
type secureConn struct {
	sec.SecureConn
	wire *wire
	mu   sync.Mutex // held by the one Write that has corked the wire
}

func (c *secureConn) Write(b []byte) (int, error) {
	if len(b) <= oneRecord {
		return c.SecureConn.Write(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wire.cork()
	n, err := c.SecureConn.Write(b)
	if uerr := c.wire.uncork(); err == nil && uerr != nil {
		return 0, uerr
	}
	return n, err
}

// Close does not wait for a Write that is stuck, as TLS would in order to say
// goodbye after it.
func (c *secureConn) Close() error {
	if c.wire.flushing.Load() {
		_ = c.wire.Conn.Close()
	}
	return c.SecureConn.Close()
}

// wire is the connection below TLS. While it is busy it reads and writes large
// pieces; the buffers for that are borrowed, so that an idle one has none.
type wire struct {
	net.Conn

	// Of the one reader that TLS lets in at a time.
	in     *[wireBuffer]byte // nil unless busy
	unread []byte            // of in
	inErr  error             // to be told after unread
	idle   bool              // the last read brought little

	mu       sync.Mutex
	out      *[wireBuffer]byte // nil unless corked
	pending  int               // bytes of out
	outErr   error             // of a write; what was to come after it has no meaning
	flushing atomic.Bool
}

func (w *wire) Read(p []byte) (int, error) {
	if w.in == nil {
		n, err := w.Conn.Read(p)
		if n == len(p) && n >= fullRead {
			w.in = wirePool.Get().(*[wireBuffer]byte)
		}
		return n, err
	}
	if len(w.unread) == 0 && w.inErr == nil {
		n, err := w.Conn.Read(w.in[:])
		w.unread, w.inErr = w.in[:n], err
		w.idle = n < idleRead
	}
	n := copy(p, w.unread)
	w.unread = w.unread[n:]
	if len(w.unread) > 0 {
		return n, nil
	}
	err := w.inErr
	w.inErr = nil
	if w.idle || err != nil {
		wirePool.Put(w.in)
		w.in, w.unread = nil, nil
	}
	return n, err
}

// Write sends b, or keeps it until uncork.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		return w.send(b)
	}
	written := 0
	for written < len(b) {
		if w.pending == wireBuffer {
			if err := w.flush(); err != nil {
				return written, err
			}
		}
		n := copy(w.out[w.pending:], b[written:])
		w.pending += n
		written += n
	}
	return written, nil
}

func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = wirePool.Get().(*[wireBuffer]byte)
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	wirePool.Put(w.out)
	w.out = nil
	return err
}

func (w *wire) flush() error {
	b := w.out[:w.pending]
	w.pending = 0
	if len(b) == 0 {
		return w.outErr
	}
	_, err := w.send(b)
	return err
}

func (w *wire) send(b []byte) (int, error) {
	if w.outErr != nil {
		return 0, w.outErr
	}
	w.flushing.Store(true)
	defer w.flushing.Store(false)
	var n int
	n, w.outErr = w.Conn.Write(b)
	return n, w.outErr
}
