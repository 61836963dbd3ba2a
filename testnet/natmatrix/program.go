//go:build linux

package natmatrix

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
)

const (
	programName = "mesh-on-a-device"
	protoEcho   = "/cloudless/lab-echo/1"

	reportEvery = 50 * time.Millisecond
	lookEvery   = 10 * time.Millisecond
	flowEvery   = 100 * time.Millisecond
	flowTimeout = time.Second
	maxLine     = 1 << 20
)

// RunProgram runs the mesh of a device and does not return, when this process
// was started for that.
func RunProgram() {
	if len(os.Args) != 2 || os.Args[1] != programName {
		return
	}
	if err := program(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// setup is the first line that the program reads.
type setup struct {
	Key     []byte
	CA      []byte
	Cert    []byte
	Cluster string
	Public  string
	MapPort bool
	Verbose bool
}

// order is any further line: the fields that are set are carried out.
type order struct {
	Contacts []p2p.Contact
	Echo     api.NodeID // send a megabyte there and back
	Flow     api.NodeID // open a small stream there again and again
	Pour     api.NodeID // fill one stream there for some seconds
	Line     bool       // … or a line
}

// Report is a line that the program prints.
type Report struct {
	Contact p2p.Contact
	Public  bool
	NAT     api.NAT
	Peers   map[api.NodeID]PeerReport
}

// PeerReport is what a mesh knows of another one. Durations count from its own
// start.
type PeerReport struct {
	Path    api.Path
	Address string
	First   time.Duration // until the first answer, by whatever path; 0 before
	Direct  time.Duration // until the first answer without a relay; 0 before
	Echo    string        // how the ordered megabyte fared: "", "ok", or what went wrong
	EchoIn  time.Duration // how long it took
	Flow    FlowReport
	Pour    PourReport
}

// PourReport is about the stream that was ordered to be filled.
type PourReport struct {
	Done          bool
	BitsPerSecond float64
	Path          api.Path // that it ran on
	Error         string
}

// FlowReport is about the streams that were ordered.
type FlowReport struct {
	Served int       // answered streams
	Last   time.Time // when one was answered last
	Path   api.Path  // that it ran on
	Error  string    // of the last one that was not answered
}

// device is the program's state.
type device struct {
	mesh  *p2p.Mesh
	lines *p2p.Lines
	begun time.Time
	mu    sync.Mutex
	peers map[api.NodeID]*PeerReport
}

func program(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return fmt.Errorf("read setup: %w", lines.Err())
	}
	var s setup
	if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	d, err := newDevice(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := errors.Join(d.serveEcho(), d.serveSink()); err != nil {
		return err
	}
	go func() {
		defer cancel() // the controller has hung up
		for lines.Scan() {
			var o order
			if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
				fmt.Fprintln(os.Stderr, "read order:", err)
				return
			}
			d.obey(ctx, o)
		}
	}()
	go d.watch(ctx)
	go func() {
		defer cancel()
		enc := json.NewEncoder(out)
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for enc.Encode(d.report()) == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return d.mesh.Run(ctx)
}

func newDevice(s setup) (*device, error) {
	ca, err := x509.ParseCertificate(s.CA)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	log := zap.NewNop()
	if s.Verbose {
		if log, err = zap.NewDevelopment(); err != nil {
			return nil, err
		}
	}
	d := &device{begun: time.Now(), peers: make(map[api.NodeID]*PeerReport)}
	d.mesh, err = p2p.New(p2p.Config{
		Key: ed25519.PrivateKey(s.Key), Admission: member{ca, s.Cert}, Cluster: s.Cluster,
		Public: s.Public, NoLAN: true, NoPortMap: !s.MapPort, Log: log,
	})
	return d, err
}

// member is the mesh's view of certificates: nobody is ever revoked here.
type member struct {
	ca   *x509.Certificate
	cert []byte
}

func (m member) Certificate() []byte     { return m.cert }
func (m member) Revoked(api.NodeID) bool { return false }
func (m member) Verify(peer api.NodeID, cert []byte) (api.Member, error) {
	return identity.Verify(cert, m.ca, time.Now(), identity.VerifyOptions{Peer: peer, Skew: time.Minute})
}

func (d *device) serveEcho() error {
	l, err := d.mesh.Listen(protoEcho)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return nil
}

func (d *device) obey(ctx context.Context, o order) {
	if o.Contacts != nil {
		d.mesh.SetMembers(o.Contacts)
	}
	if o.Echo != "" {
		go d.megabyte(ctx, o.Echo)
	}
	if o.Pour != "" {
		go d.pour(ctx, o.Pour, o.Line)
	}
	if o.Flow != "" {
		go d.flow(ctx, o.Flow)
	}
}

func (d *device) change(id api.NodeID, f func(*PeerReport)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil {
		p = new(PeerReport)
		d.peers[id] = p
	}
	f(p)
}

// watch notes when each peer first answered, and when first without a relay.
func (d *device) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	busy := make(map[api.NodeID]bool)
	done := make(chan api.NodeID, 64)
	for {
		for _, p := range d.mesh.Peers() {
			d.change(p.ID, func(r *PeerReport) {
				r.Path, r.Address = p.Path, p.Address
				if busy[p.ID] || r.First > 0 && (r.Direct > 0 || p.Path == api.PathRelayed) {
					return
				}
				busy[p.ID] = true
				go func() {
					d.answers(ctx, p)
					done <- p.ID
				}()
			})
		}
		select {
		case id := <-done:
			busy[id] = false
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *device) answers(ctx context.Context, p api.Peer) {
	if _, err := d.mesh.Probe(ctx, p.ID); err != nil {
		return
	}
	took := time.Since(d.begun)
	d.change(p.ID, func(r *PeerReport) {
		if r.First == 0 {
			r.First = took
		}
		if r.Direct == 0 && p.Path != api.PathRelayed {
			r.Direct = took
		}
	})
}

// megabyte sends one there and back.
func (d *device) megabyte(ctx context.Context, id api.NodeID) {
	begun := time.Now()
	_, err := d.echo(ctx, id, 1<<20, 30*time.Second)
	d.change(id, func(r *PeerReport) {
		r.Echo, r.EchoIn = "ok", time.Since(begun)
		if err != nil {
			r.Echo = err.Error()
		}
	})
}

// flow opens one stream after the other, as clients of a service do. One that
// is not answered is given up after a second.
func (d *device) flow(ctx context.Context, id api.NodeID) {
	tick := time.NewTicker(flowEvery)
	defer tick.Stop()
	for {
		path, err := d.echo(ctx, id, 1<<10, flowTimeout)
		d.change(id, func(r *PeerReport) {
			if err != nil {
				r.Flow.Error = err.Error()
				return
			}
			r.Flow = FlowReport{Served: r.Flow.Served + 1, Last: time.Now(), Path: path}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *device) echo(ctx context.Context, id api.NodeID, size int, within time.Duration) (api.Path, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := d.mesh.Dial(ctx, id, protoEcho)
	if err != nil {
		return api.PathNone, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, size))
		sent <- err
	}()
	n, err := io.ReadFull(c, make([]byte, size))
	if err != nil {
		_ = c.Reset() // the writer must not wait
	}
	if werr := <-sent; err == nil {
		err = werr
	}
	if err != nil {
		return c.Path(), fmt.Errorf("%d of %d bytes came back: %w", n, size, err)
	}
	return c.Path(), nil
}

func (d *device) report() Report {
	r := Report{Contact: p2p.Contact{ID: d.mesh.ID(), Addresses: d.mesh.Addrs()}, Peers: make(map[api.NodeID]PeerReport)}
	r.Public, r.NAT = d.mesh.Reachability()
	r.Contact.Relay = r.Public
	connected := make(map[api.NodeID]bool)
	for _, p := range d.mesh.Peers() {
		connected[p.ID] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, p := range d.peers {
		if !connected[id] {
			p.Path, p.Address = api.PathNone, ""
		}
		r.Peers[id] = *p
	}
	return r
}
