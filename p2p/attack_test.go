package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudless-project/cloudless/api"
)

// awaitGoroutines waits until about as few goroutines run as before.
func awaitGoroutines(t *testing.T, before int) {
	t.Helper()
	const slack = 50 // of libp2p's own comings and goings
	eventually(t, "the goroutines of the attack are gone", func() bool { return runtime.NumGoroutine() < before+slack })
}

// throughRelay is an address of a member through a relay.
func throughRelay(relay peer.AddrInfo, to peer.ID) peer.AddrInfo {
	via := relay.Addrs[0].Encapsulate(multiaddr.StringCast("/p2p/" + relay.ID.String() + "/p2p-circuit"))
	return peer.AddrInfo{ID: to, Addrs: []multiaddr.Multiaddr{via}}
}

// The cluster's relays carry nobody but members, whoever knows their addresses.
func TestStrangerIsNotRelayed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor, n1, n2 := homesOf(t, a, publicHasty)
	eventually(t, "n1 and n2 are connected by the relay", admittedBoth(n1, n2))
	for _, transport := range []string{transportTCP, transportQUIC} {
		h := stranger(t)
		if err := h.Connect(testContext(t), throughRelay(direct(t, anchor, transport), n1.host.ID())); err == nil {
			t.Errorf("a stranger was relayed over %s", transport)
		}
	}
}

// A relay that lets everybody through, because somebody has taken the machine
// over, gives a stranger no more than a direct connection does.
func TestStrangerThroughAnOpenRelayReachesNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	rogue := a.start(t, func(c *Config) { c.Public = PublicNo }, api.RoleNode, api.RoleAnchor)
	open, err := relay.New(rogue.host, relay.WithInfiniteLimits(),
		relay.WithReservationAddressFilter(func(multiaddr.Multiaddr) bool { return true }))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	contact := rogue.contact()
	contact.Relay, contact.Anchor = true, true
	n := a.start(t, func(c *Config) { c.AdmitWithin, c.Public, c.Contacts = 2*soon, PublicNo, []Contact{contact} })
	n.cut()
	serveEcho(t, n, protoEcho)
	to := throughRelay(direct(t, rogue, transportTCP), n.host.ID())
	h := stranger(t)
	eventually(t, "the relay carries the stranger", func() bool {
		if h.Connect(testContext(t), to) != nil {
			return false
		}
		c := h.Network().ConnsToPeer(to.ID) // of a busy machine it may have parted already
		return len(c) == 1 && isRelayed(c[0].RemoteMultiaddr())
	})
	refuseAll(t, h, n)
	eventually(t, "the stranger is disconnected", func() bool { return h.Network().Connectedness(to.ID) == network.NotConnected })
	if _, ok := n.Admitted(api.NodeID(h.ID().String())); ok {
		t.Error("the stranger counts as a peer")
	}
}

// refuseAll tries every protocol that n serves.
func refuseAll(t *testing.T, h host.Host, n *node) {
	t.Helper()
	protos := n.host.Mux().Protocols()
	each(protos, len(protos), func(id protocol.ID) {
		if !isOpen(id) {
			refusedStream(t, h, n.host.ID(), id)
		}
	})
}

// Hole punching is spoken to strangers, because it is needed before hello. It
// leads them to nothing: not on the connection that they punched from, and not
// on one that is punched.
func TestStrangerPunchesToNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n := a.start(t, func(c *Config) { hasty(c); c.Public = PublicNo })
	serveEcho(t, n, protoEcho)
	h := stranger(t, libp2p.ListenAddrStrings(loopback()...))
	to := direct(t, n, transportQUIC)
	if err := h.Connect(testContext(t), to); err != nil {
		t.Fatal(err)
	}
	// A simultaneous dial is all that a punch is: both ends dial, at once.
	var dials sync.WaitGroup
	dials.Go(func() {
		_ = n.host.Connect(testContext(t), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
	})
	dials.Go(func() {
		ctx := network.WithForceDirectDial(network.WithSimultaneousConnect(testContext(t), true, "punch"), "punch")
		_, _ = h.Network().DialPeer(ctx, to.ID)
	})
	dials.Wait()
	refusedStream(t, h, to.ID, holepunch.Protocol) // for relayed connections alone
	refuseAll(t, h, n)
	eventually(t, "every connection of the stranger is closed", func() bool { return len(n.host.Network().ConnsToPeer(h.ID())) == 0 })
}

// An anchor that is not the one of the token learns nothing of the token, not
// even when it answers at the right address.
func TestImpostorLearnsNoSecret(t *testing.T) {
	secret := []byte("the secret that only the anchor may see")
	fake := stranger(t, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	asked := make(chan struct{}, 10)
	fake.SetStreamHandler(api.ProtoEnrol, func(s network.Stream) {
		asked <- struct{}{}
		_ = s.Reset()
	})
	addr, heard := tap(t, fake.Addrs()[0])
	_, expected := newKey(t)
	key, _ := newKey(t)
	_, err := Enrol(testContext(t), EnrolConfig{
		Key: key, Anchors: []string{addr + "/p2p/" + string(expected)},
		Request: EnrolRequest{Cluster: "c", TokenID: "id", Secret: secret},
	})
	if api.KindOf(err) != api.KindUnavailable {
		t.Errorf("err = %v", err)
	}
	if len(asked) > 0 {
		t.Error("the impostor was asked to enrol")
	}
	raw := heard()
	if len(raw) == 0 {
		t.Error("nothing was sent: is the test still complete?")
	}
	if bytes.Contains(raw, secret) || bytes.Contains(raw, []byte("enroll")) {
		t.Error("the secret went over the wire")
	}
}

// tap passes a TCP port on and notes what clients send.
func tap(t *testing.T, to multiaddr.Multiaddr) (addr string, heard func() []byte) {
	t.Helper()
	network, target, err := manet.DialArgs(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var sent bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial(network, target)
			if err != nil {
				near.Close()
				continue
			}
			wg.Go(func() { defer near.Close(); _, _ = io.Copy(near, far) })
			wg.Go(func() {
				defer far.Close()
				_, _ = io.Copy(far, io.TeeReader(near, writerFunc(func(b []byte) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					return sent.Write(b)
				})))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	a, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return a.String(), func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(sent.Bytes())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// What a stranger may say is bounded in size and time: each stream ends, the
// connection too, and nothing of it stays.
func TestSlowStrangersAreCutOff(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, publicHasty, api.RoleNode, api.RoleAnchor)
	anchor.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		t.Error("half a request was decided on")
		return EnrolReply{}, nil
	})
	before := runtime.NumGoroutine()
	h := stranger(t)
	to := direct(t, anchor, transportTCP)
	if err := h.Connect(testContext(t), to); err != nil {
		t.Fatal(err)
	}
	opens := []protocol.ID{api.ProtoHello, api.ProtoEnrol}
	for _, id := range anchor.host.Mux().Protocols() {
		if isOpen(id) {
			opens = append(opens, id)
		}
	}
	each(opens, len(opens), func(id protocol.ID) {
		s, err := h.NewStream(testContext(t), to.ID, id)
		if err != nil {
			return // its host may be closed already
		}
		defer s.Reset()
		// The length of a frame that never comes, a byte at a time.
		trickle(t, s, binary.BigEndian.AppendUint32(nil, 4000))
	})
	eventually(t, "the stranger is disconnected", func() bool { return h.Network().Connectedness(to.ID) == network.NotConnected })
	h.Close()
	awaitGoroutines(t, before)
}

// lasting are the protocols whose streams are meant to last, and those of libp2p
// on which it bears silence for a minute. What a peer holds there is bounded by
// the number of its streams.
var lasting = []string{"/meshsub/", "/floodsub/", string(protoBundle), protoEcho, "/cloudless/test/kad/", "/libp2p/circuit/relay/"}

// A member that takes its time over every byte is cut off on each protocol that
// waits for a message, and stays a member.
func TestSlowMembersAreCutOff(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n := a.start(t, publicHasty, api.RoleNode, api.RoleAnchor)
	n.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		t.Error("half a request was decided on")
		return EnrolReply{}, nil
	})
	serveEcho(t, n, protoEcho)
	slow := a.start(t, nil)
	slow.SetMembers([]Contact{n.contact()})
	eventually(t, "admitted", admittedBoth(n, slow))
	protos := slices.DeleteFunc(n.host.Mux().Protocols(), func(id protocol.ID) bool {
		return slices.ContainsFunc(lasting, func(prefix string) bool { return strings.HasPrefix(string(id), prefix) })
	})
	for _, id := range []protocol.ID{api.ProtoHello, api.ProtoEnrol, api.ProtoProbe, api.ProtoRecords} {
		if !slices.Contains(protos, id) {
			t.Errorf("%s is not among %v: is the test still complete?", id, protos)
		}
	}
	each(protos, len(protos), func(id protocol.ID) {
		s, err := slow.host.NewStream(testContext(t), n.host.ID(), id)
		if err != nil {
			t.Errorf("open %s: %v", id, err)
			return
		}
		defer s.Reset()
		trickle(t, s, binary.BigEndian.AppendUint32(nil, 1000))
	})
	if _, ok := n.Admitted(slow.ID()); !ok {
		t.Error("the member was thrown out")
	}
}

// trickle writes a byte now and then until the other side has had enough: it
// closes the stream, or resets it.
func trickle(t *testing.T, s network.Stream, first []byte) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, s) // ends with the caller's Reset at the latest
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(testTimeout)
	for {
		b := []byte{'x'}
		if len(first) > 0 {
			b, first = first[:1], first[1:]
		}
		if _, err := s.Write(b); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		case <-end:
			t.Errorf("%s is borne for longer than %v", s.Protocol(), testTimeout)
			return
		}
	}
}

// Nonsense on any protocol, from a stranger or from a member gone mad, ends the
// stream that it came on and nothing else.
func TestNonsenseHarmsNobody(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n := a.start(t, publicHasty, api.RoleNode, api.RoleAnchor)
	n.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		return EnrolReply{}, api.Errorf(api.KindDenied, "no")
	})
	serveEcho(t, n, protoEcho)
	mad, good := a.start(t, nil), a.start(t, nil)
	for _, m := range []*node{mad, good} {
		m.SetMembers([]Contact{n.contact()})
		eventually(t, "admitted", admittedBoth(m, n))
	}
	outside := stranger(t)
	if err := outside.Connect(testContext(t), direct(t, n, transportTCP)); err != nil {
		t.Fatal(err)
	}
	nonsense := map[string][]byte{
		"a huge length":   bytes.Repeat([]byte{0xff}, 64),
		"a huge frame":    append(binary.BigEndian.AppendUint32(nil, 1<<20), bytes.Repeat([]byte("["), 1<<20)...),
		"deep JSON":       append(binary.BigEndian.AppendUint32(nil, 16000), bytes.Repeat([]byte("["), 16000)...),
		"a wrong type":    append(binary.BigEndian.AppendUint32(nil, 13), []byte(`{"version":""`)...),
		"an empty frame":  {0, 0, 0, 0},
		"a varint of old": bytes.Repeat([]byte{0x80}, 1000),
		"silence":         nil,
	}
	for what, data := range nonsense {
		for _, from := range []host.Host{mad.host, outside} {
			protos := n.host.Mux().Protocols()
			each(protos, 8, func(id protocol.ID) {
				s, err := from.NewStream(testContext(t), n.host.ID(), id)
				if err != nil {
					return
				}
				_ = s.SetDeadline(time.Now().Add(time.Second))
				_, _ = s.Write(data)
				_ = s.CloseWrite()
				_, _ = io.Copy(io.Discard, io.LimitReader(s, 1<<20))
				_ = s.Reset()
			})
		}
		c, err := good.Dial(testContext(t), n.ID(), protoEcho)
		if err != nil {
			t.Fatalf("after %s: %v", what, err)
		}
		if back, err := echo(c, []byte("still well?")); err != nil || string(back) != "still well?" {
			t.Fatalf("after %s: %q, %v", what, back, err)
		}
	}
}

// More streams of one member than it may have leave the others served, and
// nothing behind: the member too is served again once it has closed some.
func TestManyStreamsOfAMember(t *testing.T) {
	const limit, many = 1500, 2000
	a := newAuthority(t)
	limited := func(c *Config) { c.peerStreams, c.Listen = limit, []string{"/ip4/127.0.0.1/tcp/0"} }
	server, greedy, modest := a.start(t, limited), a.start(t, limited), a.start(t, limited)
	introduce(server, greedy)
	modest.SetMembers([]Contact{server.contact()})
	serveEcho(t, server, protoEcho)
	eventually(t, "admitted", func() bool { return admittedBoth(server, greedy)() && admittedBoth(server, modest)() })
	before := runtime.NumGoroutine()
	var opened atomic.Int64
	var mu sync.Mutex
	var held []Conn
	each(make([]struct{}, many), 64, func(struct{}) {
		c, err := greedy.Dial(testContext(t), server.ID(), protoEcho)
		if err != nil {
			return
		}
		if _, err := c.Write([]byte("x")); err == nil {
			opened.Add(1)
		}
		mu.Lock()
		defer mu.Unlock()
		held = append(held, c)
	})
	if n := opened.Load(); n < maxStrangerStreams || n > limit {
		t.Errorf("%d streams were opened, the limit is %d", n, limit)
	}
	c, err := modest.Dial(testContext(t), server.ID(), protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := echo(c, []byte("me too")); err != nil || string(back) != "me too" {
		t.Errorf("%q, %v", back, err)
	}
	t.Logf("%d streams, %d goroutines", opened.Load(), runtime.NumGoroutine())
	for _, c := range held {
		_ = c.Reset()
	}
	awaitGoroutines(t, before)
	if c, err = greedy.Dial(testContext(t), server.ID(), protoEcho); err != nil {
		t.Fatal(err)
	}
	if back, err := echo(c, []byte("again")); err != nil || string(back) != "again" {
		t.Errorf("%q, %v", back, err)
	}
}

// A member whose own program knows no limit opens streams on every protocol, more
// than it may, and says next to nothing on them. The others are served meanwhile, and it
// too once it has let go.
func TestManyStreamsOnEveryProtocol(t *testing.T) {
	const limit, many = 400, 3000
	a := newAuthority(t)
	tcpOnly := func(c *Config) { c.Listen = loopback()[:1] }
	server := a.start(t, func(c *Config) {
		publicHasty(c)
		tcpOnly(c)
		c.peerStreams = limit
	}, api.RoleNode, api.RoleAnchor)
	greedy := a.start(t, func(c *Config) { tcpOnly(c); c.peerStreams = maxPeerStreams })
	modest := a.start(t, tcpOnly)
	server.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		return EnrolReply{}, api.Errorf(api.KindDenied, "no")
	})
	serveEcho(t, server, protoEcho)
	for _, n := range []*node{greedy, modest} {
		n.SetMembers([]Contact{server.contact()})
		eventually(t, "admitted", admittedBoth(server, n))
	}
	before := runtime.NumGoroutine()
	protos := server.host.Mux().Protocols()
	var streams []protocol.ID
	for i := range many {
		streams = append(streams, protos[i%len(protos)])
	}
	var mu sync.Mutex
	var held []network.Stream
	each(streams, 64, func(id protocol.ID) {
		c := greedy.best(server.host.ID())
		if c == nil {
			t.Error("a stream too many has cost the member its connection")
			return
		}
		s, err := greedy.openStream(testContext(t), c, id)
		if err != nil {
			return
		}
		_, _ = s.Write([]byte{0})
		mu.Lock()
		defer mu.Unlock()
		held = append(held, s)
	})
	open := 0
	for _, c := range server.host.Network().ConnsToPeer(greedy.host.ID()) {
		open += len(c.GetStreams())
	}
	if open > limit+maxStrangerStreams { // some are being refused at this moment
		t.Errorf("%d streams are open, the limit is %d", open, limit)
	}
	c, err := modest.Dial(testContext(t), server.ID(), protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := echo(c, []byte("me too")); err != nil || string(back) != "me too" {
		t.Errorf("%q, %v", back, err)
	}
	t.Logf("%d protocols, %d streams are open, %d goroutines", len(protos), open, runtime.NumGoroutine())
	for _, s := range held {
		_ = s.Reset()
	}
	awaitGoroutines(t, before)
	if c, err = greedy.Dial(testContext(t), server.ID(), protoEcho); err != nil {
		t.Fatal(err)
	}
	if back, err := echo(c, []byte("again")); err != nil || string(back) != "again" {
		t.Errorf("%q, %v", back, err)
	}
}

// A stranger gets few streams, on any protocol, and the metrics say so.
func TestManyStreamsOfAStranger(t *testing.T) {
	a := newAuthority(t)
	metrics := prometheus.NewRegistry()
	n := a.start(t, func(c *Config) { c.AdmitWithin, c.Metrics = testTimeout, metrics })
	h := stranger(t)
	to := direct(t, n, transportTCP)
	if err := h.Connect(testContext(t), to); err != nil {
		t.Fatal(err)
	}
	c := h.Network().ConnsToPeer(to.ID)[0]
	for range 10 * maxStrangerStreams {
		if s, err := c.NewStream(testContext(t)); err == nil {
			// Not a word: it stays as long as it is let.
			defer s.Reset()
		}
	}
	eventually(t, "streams are refused", func() bool { return counted(t, metrics, "stranger_streams") >= 9*maxStrangerStreams-10 })
	if got := len(n.host.Network().ConnsToPeer(h.ID())[0].GetStreams()); got > maxStrangerStreams {
		t.Errorf("a stranger has %d streams open", got)
	}
	member := a.start(t, nil)
	serveEcho(t, n, protoEcho)
	member.SetMembers([]Contact{n.contact()})
	echoed, err := member.Dial(testContext(t), n.ID(), protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := echo(echoed, []byte("me")); err != nil || string(back) != "me" {
		t.Errorf("%q, %v", back, err)
	}
}

// counted sums up the streams that were refused for a reason.
func counted(t *testing.T, metrics *prometheus.Registry, reason string) (sum float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "cloudless_p2p_streams_refused_total" && l.GetName() == "reason" && l.GetValue() == reason {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// 1,000 connections of one address that say nothing, or not enough, are borne
// for a moment, and let a member of the same house in meanwhile, for good.
func TestManySilentConnections(t *testing.T) {
	t.Parallel()
	const many = 1000
	a := newAuthority(t)
	n := a.start(t, func(c *Config) { c.AdmitWithin = 2 * soon })
	serveEcho(t, n, protoEcho)
	port := direct(t, n, transportTCP).Addrs[0]
	_, target, err := manet.DialArgs(port)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var silent []net.Conn
	each(make([]struct{}, many), 64, func(struct{}) {
		c, err := (&net.Dialer{}).DialContext(testContext(t), "tcp", target)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		words := []string{"", "\x13", "\x13/multistream/1.0.0\n"}
		_, _ = io.WriteString(c, words[len(silent)%len(words)])
		silent = append(silent, c)
	})
	if len(silent) < many/2 {
		t.Fatalf("only %d connections were made", len(silent))
	}
	member := a.start(t, nil)
	member.SetMembers([]Contact{{ID: n.ID(), Addresses: []string{port.String()}}})
	c, err := member.Dial(testContext(t), n.ID(), protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("me")); err != nil {
		t.Fatal(err)
	}
	each(silent, len(silent), func(c net.Conn) {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(testTimeout))
		_, err := io.Copy(io.Discard, c)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Error("a connection that says nothing is borne for good")
		}
	})
	if back, err := echo(c, []byte(" too")); err != nil || string(back) != "me too" {
		t.Errorf("%q, %v", back, err)
	}
}

// Enrolments that are begun and not finished are few, whoever begins them.
func TestHalfOpenEnrolments(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor := a.start(t, publicHasty, api.RoleNode, api.RoleAnchor)
	anchor.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		return EnrolReply{ClusterName: "home"}, nil
	})
	h := stranger(t)
	to := direct(t, anchor, transportTCP)
	if err := h.Connect(testContext(t), to); err != nil {
		t.Fatal(err)
	}
	var limited, cut atomic.Int64
	begun := time.Now()
	each(make([]struct{}, 50), 50, func(struct{}) {
		s, err := h.NewStream(testContext(t), to.ID, api.ProtoEnrol)
		if err != nil {
			cut.Add(1)
			return
		}
		defer s.Reset()
		_ = s.SetDeadline(time.Now().Add(testTimeout))
		if _, err := s.Write([]byte{0}); err != nil {
			cut.Add(1)
			return
		}
		var answer enrolAnswer
		switch err := readFrame(s, maxEnrolFrame, &answer); {
		case err != nil:
			cut.Add(1)
		case answer.Kind == api.KindExhausted && strings.Contains(answer.Message, "too many"):
			limited.Add(1)
		}
	})
	// Those beyond the limit are refused, but for a few each second.
	few := int64(enrolPeer.burst) + 1 + int64(time.Since(begun).Seconds()*float64(enrolPeer.rate))
	if limited.Load() < 50-few || limited.Load()+cut.Load() != 50 {
		t.Errorf("of 50 half-open enrolments, %d were refused and %d cut off", limited.Load(), cut.Load())
	}
	key, _ := newKey(t)
	if _, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: dialable(anchor)}); err != nil {
		t.Errorf("an honest joiner: %v", err)
	}
}
