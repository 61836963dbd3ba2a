package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Many service connections between two nodes are open at once, whatever the
// transport between them allows.
func TestManyStreamsAtOnce(t *testing.T) {
	const streams = 1000
	for transport, listen := range map[string]string{
		transportTCP:  "/ip4/127.0.0.1/tcp/0",
		transportQUIC: "/ip4/127.0.0.1/udp/0/quic-v1",
	} {
		t.Run(transport, func(t *testing.T) {
			a := newAuthority(t)
			only := func(c *Config) { c.Listen = []string{listen} }
			n1, n2 := a.start(t, only), a.start(t, only)
			introduce(n1, n2)
			serveEcho(t, n2, protoEcho)
			eventually(t, "both are admitted", admittedBoth(n1, n2))

			conns := make([]Conn, streams)
			var g errgroup.Group
			g.SetLimit(32) // the echo accepts them one after the other
			for i := range conns {
				g.Go(func() (err error) {
					if conns[i], err = n1.Dial(testContext(t), n2.ID(), protoEcho); err != nil {
						return fmt.Errorf("stream %d: %w", i, err)
					}
					return says(conns[i], i)
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			for i, c := range conns { // all are still open
				if err := says(c, i+1); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(closing{c}); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "closed streams hold nothing", func() bool {
				for _, n := range []*node{n1, n2} {
					for _, c := range n.host.Network().Conns() {
						if c.Stat().NumStreams > bundleFrom/2 {
							return false
						}
					}
				}
				return true
			})
		})
	}
}

// says sends something and waits for its echo.
func says(c Conn, i int) error {
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	want := fmt.Appendf(nil, "stream %06d", i)
	if _, err := c.Write(want); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the echo is another stream's")
	}
	return nil
}

// closing ends what a stream sends before it is read to its end.
type closing struct{ Conn }

func (c closing) Read(b []byte) (int, error) {
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
