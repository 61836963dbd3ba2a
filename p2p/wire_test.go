package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/sec"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// countedConn counts the writes that reach the kernel.
type countedConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// secured runs the handshake over both ends of a connection.
func secured(t testing.TB, dialled, accepted net.Conn) (client, server *secureConn) {
	t.Helper()
	transport := func() *tlsTransport {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := newTLS(tls.ID, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	type result struct {
		conn sec.SecureConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, err := transport().SecureInbound(context.Background(), accepted, "")
		done <- result{c, err}
	}()
	c, err := transport().SecureOutbound(context.Background(), dialled, "")
	r := <-done
	if err := errors.Join(err, r.err); err != nil {
		t.Fatal(err)
	}
	return c.(*secureConn), r.conn.(*secureConn)
}

func TestRecordsOfOneWriteAreSentAtOnce(t *testing.T) {
	a, b := tcpPair(t)
	counted := &countedConn{Conn: a}
	client, server := secured(t, counted, b)
	defer client.Close()
	defer server.Close()
	received := make(chan error, 1)
	const size, times = 64 << 10, 8
	go func() {
		_, err := io.CopyN(io.Discard, server, times*size)
		received <- err
	}()
	before := counted.writes.Load()
	for range times {
		if _, err := client.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if got := counted.writes.Load() - before; got != times {
		t.Errorf("%d writes took %d system calls", times, got)
	}
	if err := <-received; err != nil {
		t.Fatal(err)
	}
}

// Whatever the sizes, every byte arrives, in both directions at once, and no
// buffer is kept once things have calmed down.
func TestWireCarriesEverything(t *testing.T) {
	a, b := tcpPair(t)
	client, server := secured(t, a, b)
	defer client.Close()
	defer server.Close()
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)

	var wait sync.WaitGroup
	for _, c := range []*secureConn{client, server} {
		wait.Go(func() {
			for rest, size := data, 1; len(rest) > 0; size = size*3%300_007 + 1 {
				n := min(size, len(rest))
				if _, err := c.Write(rest[:n]); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				rest = rest[n:]
			}
		})
		wait.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("what arrived is not what was sent (%v)", err)
			}
		})
	}
	wait.Wait()

	for range 2 { // the first may find bytes of the bulk still in the buffer
		if _, err := client.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	if server.wire.in != nil || client.wire.out != nil {
		t.Error("a calm connection holds a buffer")
	}
}

// What TLS believes to be sent was not: nothing may follow.
func TestFailedWriteIsFinal(t *testing.T) {
	a, b := net.Pipe()
	client, server := secured(t, a, b)
	defer server.Close()
	_ = client.SetWriteDeadline(time.Unix(1, 0))
	if _, err := client.Write(make([]byte, 64<<10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("write past its deadline: %v", err)
	}
	_ = client.SetWriteDeadline(time.Time{})
	for _, size := range []int{1, 64 << 10} {
		if n, err := client.Write(make([]byte, size)); err == nil || n != 0 {
			t.Errorf("a write of %d bytes after a failed one: %d, %v", size, n, err)
		}
	}
	_ = client.Close()
}

func TestCloseDoesNotWaitForStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, server := secured(t, a, b)
		written := make(chan error, 1)
		go func() {
			_, err := client.Write(make([]byte, 64<<10)) // nobody reads
			written <- err
		}()
		synctest.Wait()
		start := time.Now()
		_ = client.Close()
		if err := <-written; err == nil {
			t.Error("the write succeeded")
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("Close took %v", took)
		}
		_ = server.Close()
	})
}
