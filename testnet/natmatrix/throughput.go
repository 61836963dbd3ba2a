//go:build linux

package natmatrix

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/testnet"
)

const (
	protoSink  = "/cloudless/lab-sink/1"
	pourFor    = 5 * time.Second
	pourWithin = 30 * time.Second // for the answer, after that
	iperfPort  = "5999"
)

// serveSink swallows what it is sent, on streams and on lines, and answers with
// how much that was.
func (d *device) serveSink() error {
	l, err := d.mesh.Listen(protoSink)
	if err != nil {
		return err
	}
	if d.lines, err = d.mesh.Lines(api.RoleNode); err != nil {
		return err
	}
	go swallow(l.Accept)
	go swallow(func() (net.Conn, error) { return d.lines.Accept() })
	return nil
}

func swallow(accept func() (net.Conn, error)) {
	for {
		c, err := accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, c, make([]byte, 256<<10))
			if err == nil {
				_ = binary.Write(c, binary.BigEndian, uint64(n))
			}
		}()
	}
}

// pour fills one stream, or line, to a peer for a while.
func (d *device) pour(ctx context.Context, id api.NodeID, line bool) {
	rate, path, err := d.fill(ctx, id, line)
	d.change(id, func(r *PeerReport) {
		r.Pour = PourReport{Done: true, BitsPerSecond: rate, Path: path}
		if err != nil {
			r.Pour.Error = err.Error()
		}
	})
}

func (d *device) fill(ctx context.Context, id api.NodeID, line bool) (float64, api.Path, error) {
	ctx, cancel := context.WithTimeout(ctx, pourFor+pourWithin)
	defer cancel()
	open := func() (p2p.Conn, error) { return d.mesh.Dial(ctx, id, protoSink) }
	if line {
		open = func() (p2p.Conn, error) { return d.lines.Dial(ctx, id) }
	}
	c, err := open()
	if err != nil {
		return 0, api.PathNone, err
	}
	defer c.Close()
	begun := time.Now()
	_ = c.SetDeadline(begun.Add(pourFor + pourWithin))
	for b := make([]byte, 256<<10); time.Since(begun) < pourFor; {
		if _, err := c.Write(b); err != nil {
			return 0, c.Path(), err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return 0, c.Path(), err
	}
	var n uint64
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		return 0, c.Path(), fmt.Errorf("read how much arrived: %w", err)
	}
	return 8 * float64(n) / time.Since(begun).Seconds(), c.Path(), nil
}

// relaySpeed compares what goes through a relay between two homes that only it
// connects with what iperf3 moves from one of them to the relay: on a line, as
// flows that carry a lot get one, and on one stream, over QUIC and between two
// that have no UDP.
func relaySpeed(ctx context.Context, n *Net) ([]Figure, error) {
	plain, err := iperf(ctx, n.Lab.Device("c1"), n.Lab.Device(anchor))
	if err != nil {
		return nil, err
	}
	var figures []Figure
	for _, x := range []struct {
		name, from, to string
		line           bool
	}{{"relay_gbit", "c1", "d1", true}, {"relay_stream_gbit", "c1", "d1", false}, {"relay_tcp_gbit", "e1", "f1", false}} {
		gbit, err := n.relayed(ctx, x.from, x.to, x.line)
		if err != nil {
			return figures, err
		}
		figures = append(figures, Figure{Name: x.name, Value: gbit, Unit: "Gbit/s", Baseline: plain, Ratio: gbit / plain})
	}
	return figures, nil
}

// relayed fills a stream, or a line, between two devices, and returns how many
// Gbit/s arrived.
func (n *Net) relayed(ctx context.Context, from, to string, line bool) (float64, error) {
	if err := n.startAll(ctx, from, to); err != nil {
		return 0, err
	}
	defer n.Stop(from)
	defer n.Stop(to)
	if err := errors.Join(n.awaitPath(ctx, from, to, api.PathRelayed), n.awaitPath(ctx, to, from, api.PathRelayed)); err != nil {
		return 0, err
	}
	if err := n.order(from, order{Pour: n.Report(to).Contact.ID, Line: line}); err != nil {
		return 0, err
	}
	if err := n.Await(ctx, "a stream to be filled", func() bool { return n.Sees(from, to).Pour.Done }); err != nil {
		return 0, err
	}
	r := n.Sees(from, to).Pour
	if r.Error != "" || r.Path != api.PathRelayed {
		return 0, fmt.Errorf("fill a relayed stream from %s to %s: by %s: %s", from, to, r.Path, r.Error)
	}
	return r.BitsPerSecond / 1e9, nil
}

// iperf measures plain TCP from one device to another, in Gbit/s.
func iperf(ctx context.Context, from, to *testnet.Device) (float64, error) {
	serve, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = to.Output(serve, "iperf3", "-s", "-p", iperfPort) // ended by stop
	}()
	defer func() { stop(); <-ended }()
	args := []string{"iperf3", "-J", "-c", to.Addr.String(), "-p", iperfPort}
	if err := testnet.Await(ctx, pourWithin, "iperf3", func(ctx context.Context) error {
		_, err := from.Output(ctx, append(args[:len(args):len(args)], "-n", "1K")...)
		return err
	}); err != nil {
		return 0, err
	}
	out, err := from.Output(ctx, append(args, "-t", fmt.Sprint(int(pourFor.Seconds())))...)
	if err != nil {
		return 0, err
	}
	var result struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Received.BitsPerSecond <= 0 {
		return 0, fmt.Errorf("read iperf3: %w: %.200s", err, out)
	}
	return result.End.Received.BitsPerSecond / 1e9, nil
}
