package p2p

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
)

// DefaultPort is where a daemon listens unless it is told otherwise.
const DefaultPort = 4717

const (
	devicePortMin = 20000 // below the ports that systems give to clients
	devicePorts   = 12000
	devicePortTry = 8
)

// asidePort is a second UDP port of a public daemon. Nobody is told to connect
// there; members ask from it what their own UDP port looks like to somebody else.
const asidePort = DefaultPort + 1

// DefaultListen are the addresses that a public daemon listens on: one port for
// both transports and both families, so that a firewall needs one rule.
func DefaultListen() []string { return listenOn(DefaultPort) }

// defaultListen returns where to listen. A device that may be behind NAT uses
// DefaultPort for TCP, and a UDP port that follows from its key: when two devices of one house send from the same port,
// a router that keeps ports (most are Linux) has to change one of them, and
// then changes it differently for each destination, so that what one peer has
// observed does not help another to punch.
func defaultListen(key ed25519.PrivateKey, public string) []string {
	if public == PublicYes {
		return append(DefaultListen(), fmt.Sprintf("/ip4/0.0.0.0/udp/%d/quic-v1", asidePort), fmt.Sprintf("/ip6/::/udp/%d/quic-v1", asidePort))
	}
	return listenOn(devicePort(key))
}

func listenOn(udp int) []string {
	var out []string
	for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
		out = append(out, fmt.Sprintf("%s/tcp/%d", ip, DefaultPort), fmt.Sprintf("%s/udp/%d/quic-v1", ip, udp))
	}
	return out
}

// devicePort returns the first of a key's UDP ports that is free.
func devicePort(key ed25519.PrivateKey) int {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	port := 0
	for i := range devicePortTry {
		port = devicePortMin + int(binary.BigEndian.Uint16(sum[2*i:]))%devicePorts
		c, err := net.ListenPacket("udp4", ":"+strconv.Itoa(port))
		if err == nil {
			_ = c.Close()
			return port
		}
	}
	return port // starting will say that it is taken
}
