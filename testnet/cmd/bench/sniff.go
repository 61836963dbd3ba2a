//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/testnet"
)

const (
	sniffWord = "sniff" // first argument of this program as it listens at an uplink
	snapshot  = 64      // bytes of a frame that are looked at
)

// share is what one kind of traffic was.
type share struct {
	Frames int
	Bytes  int
}

// sniff has this program listen at an interface of a device for a while.
func sniff(ctx context.Context, d *testnet.Device, dev string, during time.Duration) (map[string]share, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := d.Output(ctx, self, sniffWord, dev, during.String())
	if err != nil {
		return nil, err
	}
	var shares map[string]share
	return shares, json.Unmarshal([]byte(out), &shares)
}

// sniffing is what this program does inside the device.
func sniffing() bool {
	if len(os.Args) != 4 || os.Args[1] != sniffWord {
		return false
	}
	during, err := time.ParseDuration(os.Args[3])
	var shares map[string]share
	if err == nil {
		shares, err = listen(os.Args[2], during)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(shares)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// listen counts what passes an interface, both ways.
func listen(dev string, during time.Duration) (map[string]share, error) {
	i, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", dev, err)
	}
	defer func() { _ = unix.Close(fd) }()
	wait := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
	); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", dev, err)
	}
	shares, frame := make(map[string]share), make([]byte, snapshot)
	for end := time.Now().Add(during); time.Now().Before(end); {
		n, from, err := unix.Recvfrom(fd, frame, unix.MSG_TRUNC)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listen at %s: %w", dev, err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		kind := kindOf(frame[:min(n, len(frame))], ok && ll.Pkttype == unix.PACKET_OUTGOING)
		s := shares[kind]
		shares[kind] = share{s.Frames + 1, s.Bytes + n}
	}
	return shares, nil
}

// kindOf says what a frame belongs to: a search on the LAN, or the socket that
// this device speaks with.
func kindOf(frame []byte, outgoing bool) string {
	const header = 14
	if len(frame) < header {
		return "other"
	}
	proto, src, dst, ports := byte(0), netip.Addr{}, netip.Addr{}, []byte(nil)
	switch p := frame[header:]; {
	case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && len(p) >= 20:
		proto, src, dst = p[9], netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		ports = p[min(len(p), int(p[0]&15)*4):]
	case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && len(p) >= 40:
		proto, src, dst = p[6], netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		ports = p[40:]
	}
	name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[proto]
	if name == "" || len(ports) < 4 {
		return "other"
	}
	from, to := netip.AddrPortFrom(src, binary.BigEndian.Uint16(ports)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(ports[2:]))
	switch {
	case name == "udp" && to.Port() == 5353:
		return "mDNS"
	case name == "udp" && (to.Port() == 1900 || to.Port() == 5351 || from.Port() == 1900):
		return "search for a router"
	case outgoing:
		return name + " " + to.String()
	}
	return name + " " + from.String()
}

// table prints the shares, the largest first, with peers by their names.
func table(shares map[string]share, peers []testnet.Peer, took time.Duration) {
	names := make(map[string]string)
	for _, p := range peers {
		if f := strings.Split(p.Address, "/"); len(f) > 4 { // /ip4/1.2.3.4/udp/4717/quic-v1
			names[f[3]+" "+net.JoinHostPort(f[2], f[4])] = p.Name + " by " + p.Transport
		}
	}
	kinds := slices.SortedFunc(maps.Keys(shares), func(a, b string) int { return cmp.Compare(shares[b].Bytes, shares[a].Bytes) })
	for _, kind := range kinds {
		s := shares[kind]
		fmt.Printf("  %-30s %.2f MB/h, %.0f frames/min\n", cmp.Or(names[kind], kind), float64(s.Bytes)/1e6/took.Hours(), float64(s.Frames)/took.Minutes())
	}
}
