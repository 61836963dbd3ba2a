//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/testnet"
)

// verdict is what a stranger reports.
type verdict struct {
	Answered   []string      `json:"answered"`    // protocols on which anything came back
	Open       []string      `json:"open"`        // protocols whose stream outlived the connection's welcome
	Courted    []string      `json:"courted"`     // protocols that the node opened to the stranger
	Relay      string        `json:"relay"`       // answer to the wish for a reservation
	ThrownOut  time.Duration `json:"thrown_out"`  // how long the connection was borne
	StillThere bool          `json:"still_there"` // it was not closed
}

// forbidden are the protocols that belong to members.
var forbidden = []protocol.ID{
	"/cloudless/api/1", "/cloudless/raft/1", "/cloudless/probe/1", "/cloudless/flow/1", "/cloudless/block/1",
	"/cloudless/gauge/1", "/cloudless/records/1", "/cloudless/revocations/1", "/cloudless/bundle/1",
	"/cloudless/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.2.0", "/ipfs/kad/1.0.0", "/cloudless/kad/1.0.0",
	"/meshsub/1.1.0", "/meshsub/1.2.0", "/meshsub/1.3.0", "/floodsub/1.0.0", "/libp2p/circuit/relay/0.2.0/stop",
}

// welcome is how long a stranger waits to be thrown out.
const welcome = 20 * time.Second

// stranger is a libp2p peer without a certificate. It runs on a device and
// prints its verdict about the node at addr.
func stranger(addr string) int {
	v, err := judge(addr)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(v)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func judge(addr string) (*verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*welcome)
	defer cancel()
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.EnableRelay())
	if err != nil {
		return nil, err
	}
	defer h.Close()
	v := &verdict{}
	var mu sync.Mutex
	note := func(list *[]string, p protocol.ID) {
		mu.Lock()
		defer mu.Unlock()
		*list = append(*list, string(p))
	}
	gone := make(chan struct{})
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { close(gone) }})
	for _, p := range forbidden {
		h.SetStreamHandler(p, func(s network.Stream) {
			note(&v.Courted, p)
			_ = s.Reset()
		})
	}
	start := time.Now()
	if err := h.Connect(ctx, *info); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	var g errgroup.Group
	for _, p := range forbidden {
		g.Go(func() error {
			switch answered, open := try(ctx, h, info.ID, p); {
			case answered:
				note(&v.Answered, p)
			case open:
				note(&v.Open, p)
			}
			return nil
		})
	}
	_, err = client.Reserve(ctx, h, *info)
	v.Relay = fmt.Sprint(err)
	select {
	case <-gone:
		v.ThrownOut = time.Since(start)
	case <-time.After(welcome):
		v.StillThere = true
	}
	return v, g.Wait()
}

// try speaks a protocol and waits for what comes of it. A node may take its
// time to refuse: it gives peers a few seconds to show their certificate.
func try(ctx context.Context, h host.Host, id peer.ID, p protocol.ID) (answered, open bool) {
	ctx, cancel := context.WithTimeout(ctx, welcome)
	defer cancel()
	s, err := h.NewStream(network.WithNoDial(ctx, "one connection"), id, p)
	if err != nil {
		return false, false
	}
	defer s.Reset()
	if err := s.SetDeadline(time.Now().Add(welcome)); err != nil {
		return false, false
	}
	if _, err := s.Write([]byte("\x10hello, stranger!")); err != nil {
		return false, false
	}
	n, err := s.Read(make([]byte, 64))
	var timeout interface{ Timeout() bool }
	return n > 0, errors.As(err, &timeout) && timeout.Timeout()
}

// TestStrangersReachNothing: from outside, a peer without a certificate speaks
// no protocol but enrolment and is thrown out; and every port that a device has
// open is one that it should have (CLD-REQ-001, NFR-S1).
func TestStrangersReachNothing(t *testing.T) {
	lab := newCluster(t, "pi")
	vps, pi, laptop := lab.Device("vps"), lab.Device("pi"), lab.Device("laptop")
	nodes, err := vps.Nodes(t.Context())
	must(t, err)
	i := slices.IndexFunc(nodes, func(n testnet.Node) bool { return n.Name == "vps" })

	self, err := os.Executable()
	must(t, err)
	for _, transport := range []string{"udp/4717/quic-v1", "udp/4718/quic-v1", "tcp/4717"} {
		t.Run(transport, func(t *testing.T) {
			addr := fmt.Sprintf("/ip4/%s/%s/p2p/%s", vps.Addr, transport, nodes[i].ID)
			out, err := laptop.Output(t.Context(), self, "stranger", addr)
			must(t, err)
			var v verdict
			must(t, json.Unmarshal([]byte(out), &v))
			t.Logf("%+v", v)
			if len(v.Answered) > 0 || len(v.Open) > 0 {
				t.Errorf("a stranger is answered on %v and kept waiting on %v", v.Answered, v.Open)
			}
			if len(v.Courted) > 0 {
				t.Errorf("the node speaks %v to a stranger", v.Courted)
			}
			if v.Relay == "<nil>" {
				t.Error("a stranger got a reservation at the relay")
			}
			if v.StillThere {
				t.Error("a stranger's connection is never closed")
			}
		})
	}

	importWeb(t, lab, pi)
	runWeb(t, pi, 2) // services open ports too
	checkPorts(t, vps, laptop, nodes[i].ID)
	i = slices.IndexFunc(nodes, func(n testnet.Node) bool { return n.Name == "pi" })
	checkPorts(t, pi, lab.Device("nas"), nodes[i].ID)
}

// expected are the sockets that a node listens on, by protocol and local
// address as ss prints them.
var expected = map[string]string{
	"udp *:4717":         "the mesh, QUIC",
	"udp 0.0.0.0:4717":   "the mesh, QUIC",
	"tcp *:4717":         "the mesh, TCP",
	"tcp 0.0.0.0:4717":   "the mesh, TCP",
	"tcp [::]:4717":      "the mesh, TCP",
	"udp [::]:4717":      "the mesh, QUIC",
	"udp *:4718":         "the mesh, QUIC: tells members what their UDP port looks like from elsewhere",
	"udp 0.0.0.0:4718":   "the same",
	"udp [::]:4718":      "the same",
	"udp 0.0.0.0:5353":   "mDNS: finds peers of the LAN, who still have to prove themselves",
	"udp *:5353":         "mDNS",
	"udp [::]:5353":      "mDNS",
	"udp 10.213.0.53:53": "names of the services",
	"tcp 10.213.0.53:53": "names of the services",
}

func checkPorts(t *testing.T, d, from *testnet.Device, id string) {
	t.Helper()
	out, err := d.Output(t.Context(), "ss", "-H", "-lntup")
	must(t, err)
	judged := map[string]error{} // by port: one socket for each address family
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		key := f[0] + " " + f[4]
		if _, ok := expected[key]; ok {
			continue
		}
		err := errors.New("only sockets of the mesh may have a port that was drawn")
		if f[0] == "udp" {
			_, port, perr := net.SplitHostPort(f[4])
			must(t, perr)
			if _, done := judged[port]; !done {
				judged[port] = judgeSocket(t, d, from, id, port)
			}
			err = judged[port]
		}
		if err != nil {
			t.Errorf("%s listens at %s, which nobody accounts for: %v: %s", d.Name, key, err, line)
		}
	}
}

// judgeSocket accounts for a UDP socket whose port was drawn. The mesh has such
// sockets: one to be punched through a NAT whose other devices use the usual
// port, others to test somebody else's reachability. A stranger must get no
// further there than at the usual port: no connection, or one that is closed
// without a word.
func judgeSocket(t *testing.T, d, from *testnet.Device, id, port string) error {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	out, err := from.Output(t.Context(), self, "stranger", fmt.Sprintf("/ip4/%s/udp/%s/quic-v1/p2p/%s", d.Addr, port, id))
	var exit *testnet.ExitError
	if errors.As(err, &exit) && strings.Contains(exit.Stderr, "connect: ") {
		return nil
	}
	if err != nil {
		return err
	}
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return err
	}
	if len(v.Answered)+len(v.Open)+len(v.Courted) > 0 || v.StillThere || v.Relay == "<nil>" {
		return fmt.Errorf("a stranger gets through: %+v", v)
	}
	return nil
}
