package p2p

import (
	"errors"
	"io"
	"testing"
)

// A stream that was reset never looks like one that has ended, on either side
// and whether its protocol was known to the opener or had to be negotiated.
func TestResetIsNoEnd(t *testing.T) {
	const proto = "/test/reset"
	a := newAuthority(t)
	server, client := a.start(t, nil), a.start(t, nil)
	introduce(server, client)
	l, err := server.Listen(proto)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2 { // the second time, the protocol is known
		dialled, err := client.Dial(testContext(t), server.ID(), proto)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dialled.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted := c.(Conn)
		if _, err := io.ReadFull(accepted, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if _, err := accepted.Write([]byte("half of")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(dialled, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if err := accepted.Reset(); err != nil {
			t.Fatal(err)
		}
		for end, c := range map[string]Conn{"other": dialled, "same": accepted} {
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the %s end reads %v after a reset", end, err)
			}
			_ = c.Close()
		}
	}
}

// BenchmarkStream is a bulk flow over loopback: one stream, one direction.
func BenchmarkStream(b *testing.B) {
	const proto, size = "/test/bulk", 2 * (64<<10 - 12)
	a := newAuthority(b)
	server, client := a.start(b, nil), a.start(b, nil)
	introduce(server, client)
	l, err := server.Listen(proto)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := client.Dial(testContext(b), server.ID(), proto)
	if err != nil {
		b.Fatal(err)
	}
	received := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, size))
		}
		received <- err
	}()
	buf := make([]byte, size)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	_ = c.Close()
}
