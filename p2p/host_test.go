package p2p

import (
	"net"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// Whoever starts a node where its port is taken learns that, and what to do.
func TestTakenPortIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// Not by New: libp2p leaves goroutines of a host behind that fails to start.
	h, err := libp2p.New(libp2p.Transport(tcp.NewTCPTransport), libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	err = h.Network().Listen(multiaddr.StringCast("/ip4/127.0.0.1/tcp/" + port))
	if err == nil {
		t.Fatal("two listen at one port")
	}
	err = startError(err)
	problems := api.Problems(err)
	if len(problems) != 1 || problems[0].Kind != api.KindConflict || !strings.Contains(err.Error(), port) || !strings.Contains(problems[0].Hint, "--listen") {
		t.Errorf("got %v", err)
	}
}
