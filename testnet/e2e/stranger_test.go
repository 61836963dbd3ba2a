//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"

	"github.com/cloudless-project/cloudless/testnet"
)

// verdict is what a stranger reports.
type verdict struct {
	Spoken     []string      `json:"spoken"`      // protocols that were accepted
	Refused    int           `json:"refused"`     // how many were not
	Relay      string        `json:"relay"`       // answer to the wish for a reservation
	Announced  []string      `json:"announced"`   // what the node says that it speaks
	ThrownOut  time.Duration `json:"thrown_out"`  // how long the connection was borne
	StillThere bool          `json:"still_there"` // it was not closed
}

// forbidden are the protocols that belong to members.
var forbidden = []string{
	"/cloudless/api/1", "/cloudless/raft/1", "/cloudless/probe/1", "/cloudless/flow/1", "/cloudless/block/1",
	"/cloudless/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.2.0", "/ipfs/kad/1.0.0", "/cloudless/kad/1.0.0",
	"/meshsub/1.1.0", "/meshsub/1.2.0", "/floodsub/1.0.0", "/libp2p/circuit/relay/0.2.0/stop",
}

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

func judge(addr string) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return verdict{}, err
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.EnableRelay())
	if err != nil {
		return verdict{}, err
	}
	defer h.Close()
	gone := make(chan struct{}, 1)
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) {
		select {
		case gone <- struct{}{}:
		default:
		}
	}})
	var v verdict
	for _, p := range append(slices.Clone(forbidden), "/cloudless/enroll/1") {
		// Each time, for a stranger is thrown out at some point.
		if err := h.Connect(ctx, *info); err != nil {
			return verdict{}, fmt.Errorf("connect: %w", err)
		}
		if speaks(ctx, h, info.ID, p) {
			v.Spoken = append(v.Spoken, p)
		} else {
			v.Refused++
		}
	}
	if known, err := h.Peerstore().GetProtocols(info.ID); err == nil {
		for _, p := range known {
			v.Announced = append(v.Announced, string(p))
		}
	}
	if err := h.Connect(ctx, *info); err != nil {
		return verdict{}, err
	}
	_, err = client.Reserve(ctx, h, *info)
	v.Relay = fmt.Sprint(err)
	return v, v.wait(ctx, h, *info, gone)
}

// wait opens a connection of its own and sees how long it is borne.
func (v *verdict) wait(ctx context.Context, h host.Host, info peer.AddrInfo, gone chan struct{}) error {
	if err := h.Network().ClosePeer(info.ID); err != nil {
		return err
	}
	if err := h.Connect(ctx, info); err != nil {
		return err
	}
	for len(gone) > 0 {
		<-gone
	}
	start := time.Now()
	select {
	case <-gone:
		v.ThrownOut = time.Since(start)
	case <-time.After(20 * time.Second):
		v.StillThere = true
	}
	return nil
}

// speaks tries a protocol: it is spoken when the stream is not refused, neither
// at the opening nor at the first byte.
func speaks(ctx context.Context, h host.Host, id peer.ID, proto string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := h.NewStream(ctx, id, protocol.ID(proto))
	if err != nil {
		return false
	}
	defer s.Reset()
	if err := s.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return true
	}
	if _, err := s.Write([]byte{0}); err != nil {
		return false
	}
	// A handler that waits for more lets the deadline pass, one that complains
	// answers or closes; a stream that was never accepted is reset.
	_, err = bufio.NewReader(s).ReadByte()
	var timeout interface{ Timeout() bool }
	return err == nil || errors.Is(err, io.EOF) || errors.As(err, &timeout) && timeout.Timeout()
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
	for _, transport := range []string{"udp/4717/quic-v1", "tcp/4717"} {
		t.Run(transport, func(t *testing.T) {
			addr := fmt.Sprintf("/ip4/%s/%s/p2p/%s", vps.Addr, transport, nodes[i].ID)
			out, err := laptop.Output(t.Context(), self, "stranger", addr)
			must(t, err)
			var v verdict
			must(t, json.Unmarshal([]byte(out), &v))
			t.Logf("%+v", v)
			if !slices.Equal(v.Spoken, []string{"/cloudless/enroll/1"}) {
				t.Errorf("a stranger can speak %v", v.Spoken)
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
	for _, d := range []*testnet.Device{vps, pi} {
		checkPorts(t, d)
	}
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
	"udp 0.0.0.0:5353":   "mDNS: finds peers of the LAN, who still have to prove themselves",
	"udp *:5353":         "mDNS",
	"udp [::]:5353":      "mDNS",
	"udp 10.213.0.53:53": "names of the services",
	"tcp 10.213.0.53:53": "names of the services",
}

func checkPorts(t *testing.T, d *testnet.Device) {
	t.Helper()
	out, err := d.Output(t.Context(), "ss", "-H", "-lntup")
	must(t, err)
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		key := f[0] + " " + f[4]
		if _, ok := expected[key]; !ok {
			t.Errorf("%s listens at %s, which nobody accounts for: %s", d.Name, key, line)
		}
	}
}
