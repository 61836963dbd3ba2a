package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cloudless-project/cloudless/api"
)

// lined is two members that are connected and take lines from each other.
func lined(t *testing.T) (n1, n2 *node, l1, l2 *Lines) {
	t.Helper()
	a := newAuthority(t)
	n1, n2 = a.start(t, nil), a.start(t, nil)
	l1, l2 = linesOf(t, n1), linesOf(t, n2)
	introduce(n1, n2)
	eventually(t, "both are admitted", admittedBoth(n1, n2))
	return n1, n2, l1, l2
}

func linesOf(t testing.TB, n *node) *Lines {
	t.Helper()
	l, err := n.Lines(api.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// linePair opens a line and accepts it.
func linePair(t *testing.T, from *Lines, to *Lines) (dialled, accepted Conn) {
	t.Helper()
	dialled, err := from.Dial(testContext(t), to.m.ID())
	if err != nil {
		t.Fatal(err)
	}
	accepted = accept(t, to)
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	for _, c := range []Conn{dialled, accepted} {
		_ = c.SetDeadline(time.Now().Add(testTimeout))
	}
	return dialled, accepted
}

func accept(t testing.TB, l *Lines) Conn {
	t.Helper()
	select {
	case c := <-l.accepted:
		return c
	case <-time.After(testTimeout):
		t.Fatal("no line came in")
		return nil
	}
}

func (l *Lines) inUse() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func TestLineCarriesBothWays(t *testing.T) {
	n1, n2, l1, l2 := lined(t)
	c, far := linePair(t, l1, l2)
	if c.Member().ID != n2.ID() || far.Member().ID != n1.ID() || c.Path() != api.PathLAN {
		t.Errorf("members %s and %s, path %s", c.Member().ID, far.Member().ID, c.Path())
	}
	go func() {
		_, _ = io.Copy(far, far)
		_ = far.CloseWrite()
	}()
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	back, err := echo(c, data)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("%d of %d bytes came back, %v", len(back), len(data), err)
	}
	far.Close()
	eventually(t, "closed lines hold nothing", func() bool { return l1.inUse()+l2.inUse() == 0 })
}

// A line that was cut must not look complete, however it was cut.
func TestCutLineIsAnError(t *testing.T) {
	_, _, l1, l2 := lined(t)
	for name, cut := range map[string]func(Conn){
		"reset":                     func(c Conn) { _ = c.Reset() },
		"the end of its process":    func(c Conn) { _ = c.(*line).raw.Close() },
		"nothing: it ends in order": nil,
	} {
		c, far := linePair(t, l1, l2)
		if _, err := c.Write([]byte("half of it")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if cut == nil {
			_ = c.CloseWrite()
		} else {
			cut(c)
		}
		_, err := far.Read(make([]byte, 1))
		if ended := errors.Is(err, io.EOF); err == nil || ended != (cut == nil) {
			t.Errorf("after %s the other end reads %v", name, err)
		}
	}
}

func TestLinesAreForMembers(t *testing.T) {
	a := newAuthority(t)
	n, stranger := a.start(t, nil), newAuthority(t).start(t, nil)
	operator := a.start(t, nil, api.RoleOperator)
	l, ls, lo := linesOf(t, n), linesOf(t, stranger), linesOf(t, operator)
	introduce(n, operator)
	eventually(t, "the operator is admitted", admittedBoth(n, operator))
	if _, err := ls.Dial(testContext(t), n.ID()); !errors.Is(err, errNotConnected) {
		t.Errorf("a line to somebody who is no member: %v", err)
	}

	// Who dials without asking its own side first learns it from the other.
	for _, from := range []*Lines{ls, lo} {
		p, err := peer.Decode(string(n.ID()))
		if err != nil {
			t.Fatal(err)
		}
		raw, secured := dialRaw(t, from, p, n)
		_ = raw.SetDeadline(time.Now().Add(testTimeout))
		if _, err := secured.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s was let in", from.m.ID())
		}
	}
	if open := l.inUse(); open != 0 {
		t.Errorf("%d lines are open", open)
	}
}

func TestLinesEndWithTheAdmission(t *testing.T) {
	n1, n2, l1, l2 := lined(t)
	c, far := linePair(t, l1, l2)
	n1.Evict(n2.ID())
	for _, end := range []Conn{c, far} {
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a line outlives the admission: %v", err)
		}
	}
}

func TestLinesEndWithTheCertificate(t *testing.T) {
	n1, n2, l1, l2 := lined(t)
	c, far := linePair(t, l1, l2)
	p, err := peer.Decode(string(n2.ID()))
	if err != nil {
		t.Fatal(err)
	}
	n1.update(p, func(r *record) {
		lapsed := *r.member
		lapsed.Lapsed = true
		r.member = &lapsed
		r.notify()
	})
	for _, end := range []Conn{c, far} {
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a line outlives the certificate: %v", err)
		}
	}
	if _, err := l1.Dial(testContext(t), n2.ID()); err == nil {
		t.Error("a line was opened to a member whose certificate has ended")
	}
}

func TestLinesPerPeerAreBounded(t *testing.T) {
	_, n2, l1, l2 := lined(t)
	for range maxPeerLines {
		linePair(t, l1, l2)
	}
	if _, err := l1.Dial(testContext(t), n2.ID()); !errors.Is(err, errManyLines) {
		t.Errorf("one line too many: %v", err)
	}
}

// A peer whose port takes no lines is left alone for a while.
func TestNoLineToWhoTakesNone(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	l1 := linesOf(t, n1)
	introduce(n1, n2)
	eventually(t, "both are admitted", admittedBoth(n1, n2))
	if _, err := l1.Dial(testContext(t), n2.ID()); err == nil || errors.Is(err, errNoLine) {
		t.Errorf("the first attempt: %v, want what the port said", err)
	}
	if _, err := l1.Dial(context.Background(), n2.ID()); !errors.Is(err, errNoLine) {
		t.Errorf("the second attempt: %v, want %v", err, errNoLine)
	}
}

// dialRaw runs the handshake of a line with a mesh, whatever its own mesh thinks of it.
func dialRaw(t *testing.T, from *Lines, p peer.ID, to *node) (manet.Conn, sec.SecureConn) {
	t.Helper()
	for _, addr := range to.host.Network().ListenAddresses() {
		if transportOf(addr) != transportTCP {
			continue
		}
		var d manet.Dialer
		raw, err := d.DialContext(testContext(t), addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		secured, err := from.security.SecureOutbound(testContext(t), whole{raw}, p)
		if err != nil {
			t.Fatal(err)
		}
		return raw, secured
	}
	t.Fatal("the mesh has no TCP port")
	return nil, nil
}

// A reader that pauses for longer than a dead line would live loses nothing.
func TestLineWaitsForAReaderThatPauses(t *testing.T) {
	t.Parallel()
	const size = 32 << 20 // more than the kernel takes
	_, _, l1, l2 := lined(t)
	near, far := linePair(t, l1, l2)
	written := make(chan error, 1)
	go func() {
		_, err := near.Write(make([]byte, size))
		written <- errors.Join(err, near.CloseWrite())
	}()
	if _, err := io.CopyN(io.Discard, far, 1<<20); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-written:
		t.Fatalf("nothing waits for the reader: %v", err)
	case <-time.After(lineSilence + lineSilence/2): // the pause itself is what is tested
	}
	if n, err := io.Copy(io.Discard, far); n != size-1<<20 || err != nil {
		t.Errorf("%d bytes after the pause, %v", n, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestSilence(t *testing.T) {
	start := time.Now()
	type look struct {
		at      time.Duration
		missing bool
		last    time.Duration
		want    time.Duration
	}
	for name, looks := range map[string][]look{
		"nothing was sent for a minute, then something is": {{0, false, time.Minute, 0}, {1, true, time.Minute, 0}},
		"what is sent is acknowledged":                     {{0, true, 0, 0}, {5, true, 3, 0}, {10, true, 1, 0}},
		"a closed window is probed now and then":           {{0, true, 1, 0}, {5, false, 4, 0}, {60, true, 59, 0}, {65, false, 1, 0}},
		"dead":                                             {{0, true, 2, 0}, {5, true, 7, 5}, {10, true, 12, 10}},
		"dead, and back":                                   {{0, true, 2, 0}, {5, true, 7, 5}, {10, true, 1, 0}, {12, true, 3, 2}},
	} {
		var s silence
		for _, l := range looks {
			if got := s.since(start.Add(l.at), acks{missing: l.missing, last: l.last}); got != l.want {
				t.Errorf("%s: %d after %d, want %d", name, got, l.at, l.want)
			}
		}
	}
}
