package blockstore

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// delayed returns an address that leads to h over a path of that round-trip
// time (and of no particular bandwidth).
func delayed(t testing.TB, h host.Host, rtt time.Duration) ma.Multiaddr {
	t.Helper()
	_, to, err := manet.DialArgs(h.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			go delay(out, in, rtt/2)
			go delay(in, out, rtt/2)
		}
	}()
	addr, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// delay copies what comes from src to dst, each byte later by d.
func delay(dst io.WriteCloser, src io.ReadCloser, d time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	queue := make(chan piece, 4096)
	go func() {
		defer dst.Close()
		for p := range queue {
			<-time.After(time.Until(p.due))
			if _, err := dst.Write(p.data); err != nil {
				src.Close()
				break
			}
		}
		for range queue {
		}
	}()
	defer close(queue)
	for {
		buf := make([]byte, 64<<10)
		n, err := src.Read(buf)
		if n > 0 {
			queue <- piece{buf[:n], time.Now().Add(d)}
		}
		if err != nil {
			return
		}
	}
}

// introduceDelayed lets from reach to only over a long path.
func introduceDelayed(t testing.TB, from, to host.Host, rtt time.Duration) {
	from.Peerstore().AddAddr(to.ID(), delayed(t, to, rtt), peerstore.PermanentAddrTTL)
}
