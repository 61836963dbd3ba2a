package p2p

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// maxKernelDials bounds how many ports of a device are tried at once.
const maxKernelDials = 4

// kernelAnswers tells whether a device on this LAN is up although its daemon
// may not be: its kernel accepts a connection to the daemon's port, or refuses
// one, without the daemon. Only addresses are tried at which the peer proved its
// identity on a connection that is still open: in another house, the same
// private address belongs to somebody else.
func (m *Mesh) kernelAnswers(ctx context.Context, p peer.ID) bool {
	return tcpAnswers(ctx, m.provenTCP(p))
}

// provenTCP returns where a LAN peer listens for TCP, as far as its connections
// prove that the address is its own.
func (m *Mesh) provenTCP(p peer.ID) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(ip netip.Addr, addr multiaddr.Multiaddr) {
		port, err := addr.ValueForProtocol(multiaddr.P_TCP)
		if err != nil {
			return
		}
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && len(out) < maxKernelDials {
			out = append(out, netip.AddrPortFrom(ip, uint16(n)))
		}
	}
	for _, c := range m.host.Network().ConnsToPeer(p) {
		ip, ok := firstIP(c.RemoteMultiaddr())
		if !ok || pathOf(c) != api.PathLAN {
			continue
		}
		for _, addr := range m.host.Peerstore().Addrs(p) {
			if at, ok := firstIP(addr); ok && at == ip && !isRelayed(addr) {
				add(ip, addr)
			}
		}
	}
	return out
}

// tcpAnswers tells whether anything at these addresses answers: by accepting a
// connection, or by refusing it.
func tcpAnswers(ctx context.Context, addrs []netip.AddrPort) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the others
	answers := make(chan bool, len(addrs))
	for _, a := range addrs {
		go func() {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.String())
			if err == nil {
				_ = conn.Close()
			}
			answers <- err == nil || errors.Is(err, syscall.ECONNREFUSED)
		}()
	}
	for range addrs {
		if <-answers {
			return true
		}
	}
	return false
}
