package p2p

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cloudless-project/cloudless/api"
)

// linedHomes is two members that a relay connects, and the lines of all three.
func linedHomes(t testing.TB, edit func(*Config)) (relay, n1, n2 *node, lr, l1, l2 *Lines) {
	t.Helper()
	relay, n1, n2 = homesOf(t, newAuthority(t), edit)
	lr, l1, l2 = linesOf(t, relay), linesOf(t, n1), linesOf(t, n2)
	eventually(t, "both homes are admitted to each other", admittedBoth(n1, n2))
	return relay, n1, n2, lr, l1, l2
}

// relayedPair opens a line through the relay, once what is needed has been heard.
func relayedPair(t testing.TB, from, to *Lines) (dialled, accepted Conn) {
	t.Helper()
	eventually(t, "a line through the relay", func() bool {
		c, err := from.dialBest(testContext(t), to.m.host.ID())
		if err != nil {
			t.Log(err)
			return false
		}
		dialled = c
		return true
	})
	accepted = accept(t, to)
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	for _, c := range []Conn{dialled, accepted} {
		_ = c.SetDeadline(time.Now().Add(testTimeout))
	}
	return dialled, accepted
}

// TestLineThroughARelay: it carries both ways and ends by halves, is counted at the
// relay and at its ends, and waits for its share.
func TestLineThroughARelay(t *testing.T) {
	t.Parallel()
	relay, n1, n2, lr, l1, l2 := linedHomes(t, func(c *Config) { public(c); c.RelayLimit = 8e9 })
	a, b := relayedPair(t, l1, l2)
	if a.Path() != api.PathRelayed || b.Path() != api.PathRelayed || b.Member().ID != n1.ID() {
		t.Errorf("the line is %s and %s, from %s", a.Path(), b.Path(), b.Member().ID)
	}
	go func() {
		_, _ = io.Copy(b, b)
		_ = b.CloseWrite()
	}()
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		if err == nil {
			err = a.CloseWrite()
		}
		sent <- err
	}()
	back, err := io.ReadAll(a)
	if err != nil || <-sent != nil || !bytes.Equal(back, data) {
		t.Fatalf("%d of %d bytes came back: %v", len(back), len(data), err)
	}
	for _, n := range []*node{n1, n2} {
		if got := sentBy(relay.RelayUsage(), n.ID()); got < uint64(len(data)) {
			t.Errorf("the relay has counted %d bytes of %s", got, n.ID())
		}
		if u := n.RelayUsage(); u.Sent < uint64(len(data)) || u.Received < uint64(len(data)) {
			t.Errorf("%s has counted %+v", n.ID(), u)
		}
	}
	relay.limit.mu.Lock()
	if relay.limit.seq == 0 {
		t.Error("the line did not wait for its share")
	}
	relay.limit.mu.Unlock()
	a.Close()
	b.Close()
	eventually(t, "nothing is left of it", func() bool { return lr.inUse()+l1.inUse()+l2.inUse() == 0 })
}

// BenchmarkThroughARelay compares a stream, whose legs to the relay are TCP or QUIC,
// with a line. Both homes and the relay share the machine.
func BenchmarkThroughARelay(b *testing.B) {
	for _, leg := range []string{transportTCP, transportQUIC} {
		a := newAuthority(b)
		relay := a.start(b, public, api.RoleNode, api.RoleAnchor)
		only := relay.contact()
		only.Addresses = slices.DeleteFunc(only.Addresses, func(s string) bool { return transportOf(multiaddr.StringCast(s)) != leg })
		homes := a.behindAt(b, relay, only, 2)
		linesOf(b, relay)
		from, to := linesOf(b, homes[0]), linesOf(b, homes[1])
		eventually(b, "both homes are admitted to each other", admittedBoth(homes[0], homes[1]))
		serveSink(b, homes[1])
		b.Run("stream/"+leg, func(b *testing.B) {
			c, err := homes[0].Dial(testContext(b), homes[1].ID(), protoSink)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, c)
		})
		b.Run("line/"+leg, func(b *testing.B) {
			c, accepted := relayedPair(b, from, to)
			go func() { _, _ = io.Copy(struct{ io.Writer }{io.Discard}, accepted) }()
			fill(b, c)
		})
		for _, n := range append(homes, relay) {
			n.stop()
		}
	}
}

func fill(b *testing.B, c Conn) {
	b.Helper()
	data := make([]byte, 256<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := c.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Reset()
}

// TestRelayedLinesEndWithTheAdmission: a member that the relay knows no more is cut off,
// whatever the other end thinks of it.
func TestRelayedLinesEndWithTheAdmission(t *testing.T) {
	t.Parallel()
	relay, n1, _, lr, l1, l2 := linedHomes(t, public)
	_, b := relayedPair(t, l1, l2)
	relay.Evict(n1.ID())
	if _, err := io.Copy(io.Discard, b); err == nil {
		t.Error("the line has ended in order")
	}
	eventually(t, "the relay has given it up", func() bool { return lr.inUse() == 0 })
}

// TestRelayedLinesAreForMembers: between two that are admitted, by who relays.
func TestRelayedLinesAreForMembers(t *testing.T) {
	t.Parallel()
	relay, n1, n2, lr, l1, _ := linedHomes(t, public)
	_, nobody := newKey(t)
	for _, to := range []api.NodeID{nobody, n1.ID(), "x"} {
		if _, err := l1.askLine(testContext(t), relay.host.ID(), protoLineVia, lineVia{To: to}); err == nil {
			t.Errorf("a line to %s is relayed", to)
		}
	}
	relay.relayMu.Lock()
	r := relay.relay
	relay.relay = nil
	relay.relayMu.Unlock()
	_, err := l1.askLine(testContext(t), relay.host.ID(), protoLineVia, lineVia{To: n2.ID()})
	relay.relayMu.Lock()
	relay.relay = r
	relay.relayMu.Unlock()
	if err == nil || !strings.Contains(err.Error(), "relays for nobody") {
		t.Errorf("who does not relay answers: %v", err)
	}
	if lr.inUse() != 0 {
		t.Errorf("%d lines are in use", lr.inUse())
	}
}

// TestATicketIsNoIdentity: a ticket that somebody else has seen leads him to the other
// end, which finds that he is somebody else; and it is good once.
func TestATicketIsNoIdentity(t *testing.T) {
	t.Parallel()
	relay, n1, n2, lr, l1, l2 := linedHomes(t, public)
	thief := newAuthority(t).start(t, nil)
	lt := linesOf(t, thief)
	c := lr.crossings.add(n1.host.ID(), n2.host.ID())
	if !lr.acquire(n1.host.ID()) || !lr.acquire(n2.host.ID()) {
		t.Fatal("there are lines already")
	}
	ctx := testContext(t)
	go lr.join(ctx, c)
	raw := dialTCP(t, relay)
	if _, err := raw.Write(append(ticketHead[:], c.tickets[1][:]...)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = lt.security.SecureInbound(ctx, whole{raw}, "") }()
	mine, scope, err := l1.comeTo(ctx, relay.host.ID(), c.tickets[0][:])
	if err != nil {
		t.Fatal(err)
	}
	defer scope.Done()
	if _, err := l1.security.SecureOutbound(ctx, whole{mine}, n2.host.ID()); err == nil {
		t.Error("the thief was taken for n2")
	}
	late, scope2, err := l2.comeTo(ctx, relay.host.ID(), c.tickets[1][:])
	if err != nil {
		t.Fatal(err)
	}
	defer scope2.Done()
	_ = late.SetReadDeadline(time.Now().Add(testTimeout))
	if n, err := late.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a ticket was good twice")
	}
}

// dialTCP connects to a member's TCP port.
func dialTCP(t *testing.T, n *node) manet.Conn {
	t.Helper()
	for _, a := range n.host.Network().ListenAddresses() {
		if transportOf(a) == transportTCP && !isRelayed(a) {
			c, err := manet.Dial(a)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
	}
	t.Fatal("it does not listen")
	return nil
}

// TestCrossingsAreGivenUp: whoever comes too late, or after the other one has given
// up, is closed.
func TestCrossingsAreGivenUp(t *testing.T) {
	x := newCrossings()
	c := x.add(newOwner(t).id, newOwner(t).id)
	here, there := net.Pipe()
	if !x.arrive(c.tickets[1], pipe{here}, &network.NullScope{}) {
		t.Fatal("a good ticket was refused")
	}
	x.remove(c)
	if _, err := there.Read(make([]byte, 1)); err == nil {
		t.Error("who came was left waiting")
	}
	if x.arrive(c.tickets[0], pipe{here}, &network.NullScope{}) || len(x.byTicket) != 0 {
		t.Error("a ticket outlives its crossing")
	}
}

// pipe is an end of net.Pipe, which has no addresses.
type pipe struct{ net.Conn }

func (pipe) LocalMultiaddr() multiaddr.Multiaddr  { return nil }
func (pipe) RemoteMultiaddr() multiaddr.Multiaddr { return nil }

// script is a connection on which somebody says something, and no more.
type script struct {
	pipe
	said io.Reader
}

func (s script) Read(b []byte) (int, error) { return s.said.Read(b) }

func FuzzReadTicket(f *testing.F) {
	f.Add(append(ticketHead[:], make([]byte, ticketSize)...))
	f.Add(ticketHead[:])
	f.Add([]byte{22, 3, 1, 2, 0, 1})
	f.Add([]byte{22})
	f.Fuzz(func(t *testing.T, said []byte) {
		got, rest, err := readTicket(script{said: bytes.NewReader(said)})
		isTicket := bytes.HasPrefix(said, ticketHead[:])
		switch {
		case err != nil:
			if len(said) >= len(ticketHead) && !isTicket || len(said) >= len(ticketHead)+ticketSize {
				t.Errorf("%x: %v", said, err)
			}
		case rest == nil:
			if !isTicket || !bytes.Equal(got[:], said[len(ticketHead):][:ticketSize]) {
				t.Errorf("%x was read as the ticket %x", said, got)
			}
		default:
			if back, err := io.ReadAll(rest); err != nil || isTicket || !bytes.Equal(back, said) {
				t.Errorf("of %x, %x was put back: %v", said, back, err)
			}
		}
	})
}

// TestARelaySeesNoPlaintextOfALine: somebody has taken over a relay and reads what
// he joins.
func TestARelaySeesNoPlaintextOfALine(t *testing.T) {
	t.Parallel()
	relay, n1, n2, lr, l1, l2 := linedHomes(t, public)
	c := lr.crossings.add(n1.host.ID(), n2.host.ID())
	ctx := testContext(t)
	answered := make(chan error, 1)
	go func() { answered <- l2.answerCall(ctx, n1.host.ID(), relay.host.ID(), c.tickets[1][:]) }()
	var seen [2]bytes.Buffer
	over := make(chan struct{})
	go func() {
		defer close(over)
		var ends [2]manet.Conn
		for range ends {
			a := <-c.came
			ends[a.end] = a.conn
		}
		var ways sync.WaitGroup
		for i := range ends {
			ways.Go(func() {
				_, _ = io.Copy(ends[1-i], io.TeeReader(ends[i], &seen[i]))
				_ = closeWrite(ends[1-i])
			})
		}
		ways.Wait()
	}()
	raw, scope, err := l1.comeTo(ctx, relay.host.ID(), c.tickets[0][:])
	if err != nil {
		t.Fatal(err)
	}
	secured, err := l1.security.SecureOutbound(ctx, whole{raw}, n2.host.ID())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l1.open(secured.(*secureConn), raw, scope, new(relayCount))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	b := accept(t, l2)
	secret := []byte("nobody in between reads this")
	if _, err := a.Write(secret); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(secret))
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("%q, %v", got, err)
	}
	a.Close()
	b.Close()
	<-over
	for i := range seen {
		if seen[i].Len() == 0 || bytes.Contains(seen[i].Bytes(), secret) {
			t.Errorf("of %d bytes the relay could read some", seen[i].Len())
		}
	}
}

func FuzzLineFrame(f *testing.F) {
	for _, v := range []any{lineVia{To: "x"}, lineCall{From: "x", Ticket: make([]byte, ticketSize)}, lineAnswer{Refused: "no"}} {
		var b bytes.Buffer
		if err := writeFrame(&b, maxLineFrame, v); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		var via lineVia
		var call lineCall
		var answer lineAnswer
		for _, v := range []any{&via, &call, &answer} {
			_ = readFrame(bytes.NewReader(said), maxLineFrame, v)
		}
		if n := len(via.To) + len(call.From) + len(call.Ticket) + len(answer.Ticket) + len(answer.Refused); n > 4*maxLineFrame {
			t.Errorf("%d bytes were read", n)
		}
	})
}
