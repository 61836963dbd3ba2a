//go:build linux

package testnet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// TestMain makes this test binary serve three more purposes: the init of a
// device, and the two programs below, which the tests run on devices.
func TestMain(m *testing.M) {
	RunInit()
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case "mirror":
			err = mirror()
		case "mapping":
			err = mapping(os.Args[2:])
		case "peer":
			err = runPeer(os.Args[2:])
		default:
			os.Exit(m.Run())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mirror tells everybody who sends it a datagram from where it came.
func mirror() error {
	for _, port := range []int{5001, 5002} {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort([]byte(from.String()), from)
			}
		}()
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin) // until the test hangs up
	return err
}

// mapping prints how this device's port 4001 looks from each destination.
func mapping(destinations []string) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 4001})
	if err != nil {
		return err
	}
	for _, d := range destinations {
		to, err := net.ResolveUDPAddr("udp4", d)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo([]byte("?"), to); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		buf := make([]byte, 64)
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		fmt.Println(string(buf[:n]))
	}
	return nil
}

// runPeer is a minimal libp2p peer: a relay, a listener that is reached
// through it, or a dialer that reports when the connection became direct.
func runPeer(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	observedaddrs.ActivationThresh = 1 // there is one observer, the relay
	switch args[0] {
	case "relay":
		h, err := newPeer(libp2p.ForceReachabilityPublic())
		if err != nil {
			return err
		}
		defer h.Close()
		if _, err := relay.New(h, relay.WithInfiniteLimits()); err != nil {
			return err
		}
		announce(h.Addrs(), h.ID())
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "listen":
		return listenThrough(ctx, args[1])
	case "dial":
		return dialThrough(ctx, args[1])
	}
	return fmt.Errorf("unknown role %q", args[0])
}

func newPeer(opts ...libp2p.Option) (host.Host, error) {
	return libp2p.New(append(opts,
		libp2p.ListenAddrStrings("/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001"),
		libp2p.EnableHolePunching(),
		libp2p.EnableRelay(),
	)...)
}

// announce prints the first address that others can use, as one JSON string.
func announce(addrs []ma.Multiaddr, id peer.ID) {
	for _, a := range addrs {
		if strings.Contains(a.String(), "quic") && !strings.Contains(a.String(), "127.0.0.1") {
			_ = json.NewEncoder(os.Stdout).Encode(a.String() + "/p2p/" + id.String())
			return
		}
	}
}

func join(ctx context.Context, relayAddr string) (host.Host, *peer.AddrInfo, error) {
	info, err := peer.AddrInfoFromString(relayAddr)
	if err != nil {
		return nil, nil, err
	}
	h, err := newPeer(libp2p.ForceReachabilityPrivate())
	if err != nil {
		return nil, nil, err
	}
	if err := h.Connect(ctx, *info); err != nil {
		h.Close()
		return nil, nil, err
	}
	return h, info, awaitHolePunching(ctx, h)
}

// awaitHolePunching waits until the peer speaks the protocol that coordinates a
// punch, which it does once somebody told it its public address.
func awaitHolePunching(ctx context.Context, h host.Host) error {
	sub, err := h.EventBus().Subscribe(new(event.EvtLocalProtocolsUpdated), eventbus.BufSize(64))
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		for _, p := range h.Mux().Protocols() {
			if p == "/libp2p/dcutr" {
				return nil
			}
		}
		select {
		case <-sub.Out():
		case <-ctx.Done():
			return fmt.Errorf("no public address observed: %w", ctx.Err())
		}
	}
}

func listenThrough(ctx context.Context, relayAddr string) error {
	h, info, err := join(ctx, relayAddr)
	if err != nil {
		return err
	}
	defer h.Close()
	if _, err := client.Reserve(ctx, h, *info); err != nil {
		return err
	}
	_ = json.NewEncoder(os.Stdout).Encode(relayAddr + "/p2p-circuit/p2p/" + h.ID().String())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func dialThrough(ctx context.Context, circuit string) error {
	relayAddr, _, _ := strings.Cut(circuit, "/p2p-circuit")
	h, _, err := join(ctx, relayAddr)
	if err != nil {
		return err
	}
	defer h.Close()
	target, err := peer.AddrInfoFromString(circuit)
	if err != nil {
		return err
	}
	direct := make(chan ma.Multiaddr, 16)
	h.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if a := c.RemoteMultiaddr(); c.RemotePeer() == target.ID && !strings.Contains(a.String(), "p2p-circuit") {
			direct <- a
		}
	}})
	start := time.Now()
	if err := h.Connect(ctx, *target); err != nil {
		return err
	}
	fmt.Printf("relayed after %d ms\n", time.Since(start).Milliseconds())
	start = time.Now()
	select {
	case a := <-direct:
		fmt.Printf("direct after %d ms by %s\n", time.Since(start).Milliseconds(), a)
	case <-time.After(15 * time.Second):
		fmt.Println("stays relayed")
	}
	return nil
}
