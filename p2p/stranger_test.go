package p2p

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// stranger is a plain libp2p host with everything libp2p has, and no
// certificate.
func stranger(t *testing.T, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append([]libp2p.Option{libp2p.NoListenAddrs, libp2p.EnableRelay(), libp2p.DisableMetrics()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// direct returns the target's address over one transport.
func direct(t *testing.T, n *node, transport string) peer.AddrInfo {
	t.Helper()
	for _, text := range n.Addrs() {
		if a := multiaddr.StringCast(text); transportOf(a) == transport {
			return peer.AddrInfo{ID: n.host.ID(), Addrs: []multiaddr.Multiaddr{a}}
		}
	}
	t.Fatalf("no %s address in %v", transport, n.Addrs())
	return peer.AddrInfo{}
}

// refusedStream opens a protocol, says something and expects to be cut off.
func refusedStream(t *testing.T, h host.Host, to peer.ID, id protocol.ID) {
	t.Helper()
	s, err := h.NewStream(testContext(t), to, id)
	if err != nil {
		return
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(testTimeout))
	_, _ = s.Write([]byte("\x08hello\n\n\n"))
	if n, err := s.Read(make([]byte, 64)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%s answers a stranger: %d bytes, %v", id, n, err)
	}
}

// openToStrangers are the only protocols that answer somebody without a
// certificate.
var openToStrangers = []string{"/ipfs/id/", "/libp2p/autonat/2/", "/libp2p/dcutr", api.ProtoEnrol, api.ProtoHello}

func TestStrangerReachesNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n := a.start(t, publicHasty, api.RoleNode, api.RoleAnchor)
	serveEcho(t, n, protoEcho)
	n.Host().SetStreamHandler("/cloudless/ipfs/bitswap/1.2.0", func(s network.Stream) {
		_, _ = s.Write([]byte("block"))
		_ = s.Close()
	})
	cancel, err := n.Subscribe(api.TopicMembership, func(api.NodeID, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()

	for _, transport := range []string{transportTCP, transportQUIC} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			h := stranger(t)
			to := direct(t, n, transport)
			if err := h.Connect(testContext(t), to); err != nil {
				t.Fatal(err)
			}
			protos := append(n.host.Mux().Protocols(), ping.ID)
			if len(protos) < 10 {
				t.Errorf("only %v are served: is the test still complete?", protos)
			}
			each(protos, len(protos), func(id protocol.ID) {
				if !isOpen(id) {
					refusedStream(t, h, to.ID, id)
				}
			})
			if _, err := client.Reserve(testContext(t), h, to); err == nil {
				t.Error("a stranger has reserved at the relay")
			}
			eventually(t, "the stranger is disconnected", func() bool { return h.Network().Connectedness(to.ID) == network.NotConnected })
			if len(n.Peers()) != 0 {
				t.Error("a stranger counts as a peer")
			}
		})
	}
}

func isOpen(id protocol.ID) bool {
	for _, prefix := range openToStrangers {
		if strings.HasPrefix(string(id), prefix) {
			return true
		}
	}
	return false
}

func TestStrangerWithoutHelloIsClosed(t *testing.T) {
	t.Parallel()
	n := newAuthority(t).start(t, hasty)
	h := stranger(t)
	if err := h.Connect(testContext(t), direct(t, n, transportTCP)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stranger is disconnected", func() bool { return len(h.Network().Conns()) == 0 })
}

func TestStrangersHelloIsRefused(t *testing.T) {
	n := newAuthority(t).start(t, nil)
	h := stranger(t)
	to := direct(t, n, transportQUIC)
	if err := h.Connect(testContext(t), to); err != nil {
		t.Fatal(err)
	}
	s, err := h.NewStream(testContext(t), to.ID, api.ProtoHello)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := writeFrame(s, maxHelloFrame, helloMessage{Version: helloVersion, Certificate: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	var reply helloMessage
	if err := readFrame(s, maxHelloFrame, &reply); err != nil {
		t.Fatal(err)
	}
	if reply.Refused == "" || reply.Certificate != nil {
		t.Errorf("reply = %+v, want a refusal that shows no certificate", reply)
	}
}

func TestOnlyEd25519(t *testing.T) {
	n := newAuthority(t).start(t, nil)
	key, _, err := crypto.GenerateECDSAKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := stranger(t, libp2p.Identity(key))
	_ = h.Connect(testContext(t), direct(t, n, transportTCP))
	eventually(t, "no connection", func() bool { return len(n.host.Network().Conns()) == 0 })
}

func TestNoiseIsNotSpoken(t *testing.T) {
	n := newAuthority(t).start(t, nil)
	h := stranger(t, noiseOnly())
	if err := h.Connect(testContext(t), direct(t, n, transportTCP)); err == nil {
		t.Error("connected by Noise")
	}
}
