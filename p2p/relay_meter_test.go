package p2p

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
)

const protoSink = "/cloudless/test-sink/1"

// serveSink swallows what it is sent.
func serveSink(t testing.TB, n *node) {
	t.Helper()
	l, err := n.Listen(protoSink)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
}

// pour opens a stream and fills it until the test ends.
func pour(t *testing.T, from, to *node) {
	t.Helper()
	var c Conn
	eventually(t, "a relayed stream", func() bool {
		var err error
		if c, err = from.Dial(testContext(t), to.ID(), protoSink); err != nil {
			t.Log(err)
		}
		return err == nil
	})
	if c.Path() != api.PathRelayed {
		t.Fatalf("the path is %s, want relayed", c.Path())
	}
	t.Cleanup(func() { _ = c.Reset() })
	go func() {
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
}

func sentBy(u RelayUsage, id api.NodeID) uint64 {
	for _, p := range u.Peers {
		if p.Peer == id {
			return p.Sent
		}
	}
	return 0
}

// TestRelaySharesItsLimit: one member sends by twenty streams, another by one,
// through a relay with a limit.
func TestRelaySharesItsLimit(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20 // bytes per second
	a := newAuthority(t)
	anchor := a.start(t, func(c *Config) { c.Public, c.RelayLimit = PublicYes, 8*limit }, api.RoleNode, api.RoleAnchor)
	n := a.behind(t, anchor, 3)
	sink, many, one := n[0], n[1], n[2]
	serveSink(t, sink)
	for range 20 {
		pour(t, many, sink)
	}
	pour(t, one, sink)
	before, begun := anchor.RelayUsage(), time.Now()
	var after RelayUsage
	var took time.Duration
	eventually(t, "some megabytes are relayed", func() bool {
		after, took = anchor.RelayUsage(), time.Since(begun)
		return after.Carried-before.Carried > 4*limit
	})
	allowed := 1.1*limit*took.Seconds() + 4*relayBuffer // what was read waits in each of the circuits
	if got := float64(after.Carried - before.Carried); got > allowed {
		t.Errorf("%.0f bytes were relayed in %s, the limit allows %.0f", got, took, allowed)
	}
	m, o := sentBy(after, many.ID())-sentBy(before, many.ID()), sentBy(after, one.ID())-sentBy(before, one.ID())
	if m > 2*o || o > 2*m {
		t.Errorf("twenty streams of one member sent %d bytes, one of another %d: want about the same", m, o)
	}
}

func TestRelayUsage(t *testing.T) {
	anchor, n1, n2 := homes(t, newAuthority(t))
	serveEcho(t, n2, protoEcho)
	data := bytes.Repeat([]byte("u"), 1<<20)
	eventually(t, "a megabyte is echoed", func() bool {
		c, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
		if err != nil {
			return false
		}
		back, err := echo(c, data)
		return err == nil && len(back) == len(data)
	})
	const least, most = 1 << 20, 1<<20 + 1<<18 // a little is added by TLS, hello and gossip
	within := func(what string, n uint64) {
		if n < least || n > most {
			t.Errorf("%s: %d bytes, want between %d and %d", what, n, least, most)
		}
	}
	u := anchor.RelayUsage()
	within("sent by n1", sentBy(u, n1.ID()))
	within("sent by n2", sentBy(u, n2.ID()))
	if u.Carried < 2*least || u.Sent+u.Received != 0 {
		t.Errorf("the relay says %+v", u)
	}
	own := n1.RelayUsage()
	within("n1 by relay, out", own.Sent)
	within("n1 by relay, in", own.Received)
	if own.Carried != 0 {
		t.Errorf("n1 relays nothing and says %+v", own)
	}
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(relayUsage{anchor.Mesh}); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]int)
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
	}
	if n := series["cloudless_p2p_relay_peer_bytes_total"]; n != 4 {
		t.Errorf("%d series of two peers and two directions", n)
	}
}

// tapHost records every byte that a relay reads from its circuits.
type tapHost struct {
	circuitHost
	mu    *sync.Mutex
	bytes *bytes.Buffer
}

func (h tapHost) SetStreamHandler(id protocol.ID, serve network.StreamHandler) {
	h.circuitHost.SetStreamHandler(id, func(s network.Stream) { serve(tapStream{s, h}) })
}

func (h tapHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.circuitHost.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return tapStream{s, h}, nil
}

type tapStream struct {
	network.Stream
	h tapHost
}

func (s tapStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.bytes.Write(b[:n])
	return n, err
}

var _ host.Host = tapHost{}

// TestRelaySeesNoPlaintext looks at everything that passes a relay while a
// known text goes there and back.
func TestRelaySeesNoPlaintext(t *testing.T) {
	a := newAuthority(t)
	relay := a.start(t, func(c *Config) { c.Public = PublicNo }, api.RoleNode, api.RoleAnchor)
	tap := tapHost{circuitHost{relay.gated, relay.carried, nil}, new(sync.Mutex), new(bytes.Buffer)}
	r, err := relay.newRelay(tap)
	if err != nil {
		t.Fatal(err)
	}
	relay.relayMu.Lock()
	relay.relay = r
	relay.relayMu.Unlock()
	n := a.behind(t, relay, 2)
	serveEcho(t, n[1], protoEcho)
	canary := []byte("the canary sings only at home")
	data := bytes.Repeat(canary, 1000)
	eventually(t, "the text is echoed by relay", func() bool {
		c, err := n[0].Dial(testContext(t), n[1].ID(), protoEcho)
		if err != nil {
			return false
		}
		back, err := echo(c, data)
		return err == nil && bytes.Equal(back, data) && c.Path() == api.PathRelayed
	})
	tap.mu.Lock()
	defer tap.mu.Unlock()
	if tap.bytes.Len() < 2*len(data) {
		t.Fatalf("the relay carried %d bytes, the text alone is %d each way", tap.bytes.Len(), len(data))
	}
	for _, secret := range [][]byte{canary, []byte(protoEcho), n[0].adm.Certificate()} {
		if bytes.Contains(tap.bytes.Bytes(), secret) {
			t.Errorf("the relay has seen %q", secret)
		}
	}
}
