package p2p

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// A process that is stopped accepts nothing; its kernel does.
func TestKernelAnswersForADaemonThatDoesNot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := netip.MustParseAddrPort(l.Addr().String())
	if !tcpAnswers(testContext(t), []netip.AddrPort{stopped}) {
		t.Error("a port that is listened to and never accepted from counts as dead")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !tcpAnswers(testContext(t), []netip.AddrPort{stopped}) {
		t.Error("a port that refuses counts as dead")
	}
	if tcpAnswers(testContext(t), nil) {
		t.Error("nobody answers, and yet …")
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if tcpAnswers(late, []netip.AddrPort{stopped}) {
		t.Error("an answer that came too late counts")
	}
}

// Where a neighbour listens is taken from connections on which it proved who it
// is.
func TestKernelIsAskedAtProvenAddressesOnly(t *testing.T) {
	a := newAuthority(t)
	one, two := a.start(t, nil), a.start(t, nil)
	if got := one.provenTCP(two.host.ID()); len(got) != 0 {
		t.Errorf("without a connection: %v", got)
	}
	introduce(one, two)
	eventually(t, "the device to be seen", func() bool {
		if path, _ := one.Path(two.ID()); path != api.PathLAN {
			return false
		}
		return one.kernelAnswers(testContext(t), two.host.ID())
	})
}
