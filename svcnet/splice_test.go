package svcnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// tcpPair returns both ends of a connection over the loopback.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// plain hides that a connection is TCP, as a stream of the mesh is not.
type plain struct{ Conn }

// A peer that breaks off must not look like one that has finished.
func TestResetIsPassedOn(t *testing.T) {
	for _, stream := range []bool{false, true} {
		client, near := tcpPair(t)
		far, server := tcpPair(t)
		var backend Conn = far
		if stream {
			backend = plain{far}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = splice(context.Background(), near, backend, testMetrics(t).open(sideClient, tcp, "lan"))
		}()
		if _, err := server.Write([]byte("half of it")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		reset(server)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("stream %t: client sees %v, want a reset", stream, err)
		}
		<-done
	}
}

func TestSpliceEndsWithItsContext(t *testing.T) {
	client, near := tcpPair(t)
	far, _ := tcpPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = splice(ctx, near, far, testMetrics(t).open(sideClient, tcp, "self"))
	}()
	cancel()
	<-done
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived its context")
	}
}

// sizes returns the lengths of the buffers that a copy offers to its source.
type sizes struct {
	reads []int // bytes to return, one per call
	seen  []int
}

func (s *sizes) Read(p []byte) (int, error) {
	if len(s.reads) == 0 {
		return 0, io.EOF
	}
	s.seen = append(s.seen, len(p))
	n := min(s.reads[0], len(p))
	s.reads = s.reads[1:]
	return n, nil
}

func TestBuffersGrowAndShrinkWithTheTraffic(t *testing.T) {
	src := &sizes{reads: []int{10, smallBuffer, largeBuffer, largeBuffer}}
	for range shrinkAfter + 1 {
		src.reads = append(src.reads, 10)
	}
	n := prometheus.NewCounter(prometheus.CounterOpts{})
	var out bytes.Buffer
	if err := copyStream(&out, src, n); err != nil {
		t.Fatal(err)
	}
	seen := src.seen
	if seen[0] != smallBuffer || seen[1] != smallBuffer || seen[2] != largeBuffer || seen[len(seen)-1] != smallBuffer {
		t.Errorf("buffers offered: %v", seen)
	}
	var counted dto.Metric
	if err := n.Write(&counted); err != nil || int(counted.Counter.GetValue()) != out.Len() {
		t.Errorf("counted %v of %d bytes, %v", counted.Counter.GetValue(), out.Len(), err)
	}
}

func TestFramedDatagrams(t *testing.T) {
	a, b := tcpPair(t)
	in, out := newFramed(a), newFramed(b)
	words := []string{"one", "", strings.Repeat("x", maxPacket)}
	go func() {
		for _, w := range words {
			_ = out.writePacket([]byte(w))
		}
		_ = out.Close()
	}()
	for _, want := range words {
		if got, err := in.readPacket(); err != nil || string(got) != want {
			t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	if _, err := in.readPacket(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

func FuzzFramed(f *testing.F) {
	f.Add([]byte("\x00\x03one\x00\x00"))
	f.Add([]byte("\xff\xff"))
	f.Add([]byte("\x00\x05ab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newFramed(readOnly{r: bytes.NewReader(b)})
		total := 0
		for {
			p, err := in.readPacket()
			if err != nil {
				break
			}
			if total += 2 + len(p); len(p) > maxPacket || total > len(b) {
				t.Fatalf("%d bytes gave datagrams of %d", len(b), total)
			}
		}
	})
}

type readOnly struct {
	net.Conn
	r io.Reader
}

func (r readOnly) Read(p []byte) (int, error) { return r.r.Read(p) }

// queue is one direction of datagrams in memory.
type queue struct {
	in, out chan []byte
	closed  chan struct{}
	once    sync.Once
	ended   atomic.Bool
}

func newQueue() *queue {
	return &queue{in: make(chan []byte), out: make(chan []byte, 10), closed: make(chan struct{})}
}

func (q *queue) readPacket() ([]byte, error) {
	select {
	case p := <-q.in:
		return p, nil
	case <-q.closed:
		return nil, io.EOF
	}
}

func (q *queue) writePacket(p []byte) error {
	q.out <- bytes.Clone(p)
	return nil
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	q.ended.Store(true)
	return nil
}

func TestRelayEndsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, backend := newQueue(), newQueue()
		m, err := newMetrics(nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		done := make(chan time.Duration)
		go func() {
			relay(context.Background(), client, backend, time.Minute, m.open(sideClient, udp, "lan"))
			done <- time.Since(start)
		}()
		for range 3 { // traffic keeps it open
			time.Sleep(50 * time.Second)
			client.in <- []byte("ping")
			if got := <-backend.out; string(got) != "ping" {
				t.Errorf("got %q", got)
			}
		}
		if took := <-done; took < 150*time.Second+30*time.Second || took > 150*time.Second+2*time.Minute {
			t.Errorf("ended after %s, the last datagram was at 150s", took)
		}
		if !client.ended.Load() || !backend.ended.Load() {
			t.Error("a side was left open")
		}
	})
}
