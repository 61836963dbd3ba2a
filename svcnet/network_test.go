//go:build linux

package svcnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/cloudless-project/cloudless/api"
)

var http80 = api.Port{Name: "http", Port: 80, Target: 8080}

func TestServiceIsReachedFromHostsAndContainers(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	web := w.endpoint(t, "web", "web.0.1", "b")
	serveName(t, web.NetnsPath, ":8080", "web.0.1")
	client := l.devices["a"].attach(t, "client.0.1")
	w.publish(t)

	for what, path := range map[string]string{
		"host of another node":      l.devices["a"].path(),
		"container of another node": client.NetnsPath,
		"host of the same node":     l.devices["b"].path(),
		"the replica itself":        web.NetnsPath,
	} {
		if got, err := get(path, "10.213.1.0:80"); err != nil || got != "web.0.1" {
			t.Errorf("from %s: got %q, %v", what, got, err)
		}
	}
}

func TestOwnReplicaIsPreferred(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	for i, node := range []api.NodeID{"a", "b"} {
		id := api.NewReplicaID("web", i, 1)
		serveName(t, w.endpoint(t, "web", id, node).NetnsPath, ":8080", string(id))
	}
	w.publish(t)
	for node, want := range map[api.NodeID]string{"a": "web.0.1", "b": "web.1.1"} {
		for range 5 {
			if got, err := get(l.devices[node].path(), "10.213.1.0:80"); err != nil || got != want {
				t.Errorf("from %s: got %q, %v; want its own %s", node, got, err, want)
			}
		}
	}
}

// Endpoints that refuse, are gone, or never answer cost the client nothing but
// time, whatever their order.
func TestBadEndpointsAreRetriedElsewhere(t *testing.T) {
	l := newLab(t, "a", "b")
	silent, err := net.Listen("unix", filepath.Join(l.dir, "silent.flow"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name string
		node api.NodeID // of the bad endpoint
		gone bool       // from its node's table
	}{
		{name: "refuses-here", node: "a"},
		{name: "refuses-there", node: "b"},
		{name: "not-there", node: "b", gone: true},
		{name: "unreachable", node: "nowhere"},
		{name: "silent", node: "silent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := l.world()
			w.service(c.name, "10.213.1.1", http80)
			bad := api.NewReplicaID(c.name, 0, 1)
			w.endpoint(t, c.name, bad, c.node)
			if c.gone {
				delete(w.local[c.node], bad)
			}
			good := api.NewReplicaID(c.name, 1, 1)
			serveName(t, w.endpoint(t, c.name, good, "b").NetnsPath, ":8080", "good")
			w.publish(t)
			for range 6 {
				if got, err := get(l.devices["a"].path(), "10.213.1.1:80"); err != nil || got != "good" {
					t.Fatalf("got %q, %v", got, err)
				}
			}
		})
	}
}

func TestNoEndpointWaitsForOne(t *testing.T) {
	l := newLab(t, "a")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	w.publish(t)
	conn, err := dial(l.devices["a"].path(), "tcp4", "10.213.1.0:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := w.endpoint(t, "web", "web.0.1", "a")
	listenIn(t, a.NetnsPath, ":8080", func(c net.Conn) { _, _ = c.Write([]byte("late")); _ = c.Close() })
	w.publish(t)
	if got, err := io.ReadAll(conn); err != nil || string(got) != "late" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRefusedByAllIsAReset(t *testing.T) {
	l := newLab(t, "a")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	w.endpoint(t, "web", "web.0.1", "a")
	w.publish(t)
	conn, err := dial(l.devices["a"].path(), "tcp4", "10.213.1.0:80")
	if err == nil { // the reset may be faster than the dial
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection: %v, want a reset", err)
	}
	if _, err := dial(l.devices["a"].path(), "tcp4", "10.213.1.0:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port without a service: %v, want refused", err)
	}
}

// echo returns what it gets until the client ends its side.
func echo(c net.Conn) {
	_, _ = io.Copy(c, c)
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.Close()
}

func TestTableChangeKeepsEstablishedFlows(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	w.service("web", "10.213.1.0", http80, api.Port{Port: 81, Target: 8080})
	web := w.endpoint(t, "web", "web.0.1", "b")
	listenIn(t, web.NetnsPath, ":8080", echo)
	w.publish(t)
	path := l.devices["a"].path()
	conn, err := dial(path, "tcp4", "10.213.1.0:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(word string) {
		t.Helper()
		buf := make([]byte, len(word))
		if _, err := conn.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != word {
			t.Fatalf("said %q, heard %q, %v", word, buf, err)
		}
	}
	say("before")

	// The port goes, the endpoint becomes not ready, another service comes.
	w.services[0].Ports = w.services[0].Ports[1:]
	w.services[0].Endpoints[0].Ready = false
	w.service("other", "10.213.1.1", http80)
	w.publish(t)

	say("after")
	if _, err := dial(path, "tcp4", "10.213.1.0:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port that left the table: %v, want refused", err)
	}
}

// Both directions carry megabytes at once, and the end of one does not end the other.
func TestBytesArriveWholeWithHalfClose(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	for i, node := range []api.NodeID{"a", "b"} {
		name := "on-" + string(node)
		w.service(name, fmt.Sprintf("10.213.1.%d", i), http80)
		a := w.endpoint(t, name, api.NewReplicaID(name, 0, 1), node)
		listenIn(t, a.NetnsPath, ":8080", func(c net.Conn) {
			defer c.Close()
			all, _ := io.ReadAll(c) // answers only after the client has ended
			_, _ = c.Write(all)
		})
	}
	w.publish(t)
	data := make([]byte, 9<<20) // more than two of the kernel's splice chunks
	_, _ = rand.Read(data)
	for _, vip := range []string{"10.213.1.0:80", "10.213.1.1:80"} {
		conn, err := dial(l.devices["a"].path(), "tcp4", vip)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes came back, %v; want the %d that were sent", vip, len(got), err, len(data))
		}
		_ = conn.Close()
	}
}

func TestDatagrams(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	port := api.Port{Port: 53, Target: 5353, Protocol: "udp"}
	for i, node := range []api.NodeID{"a", "b"} {
		name := "on-" + string(node)
		w.service(name, fmt.Sprintf("10.213.1.%d", i), port)
		a := w.endpoint(t, name, api.NewReplicaID(name, 0, 1), node)
		serveUDP(t, a.NetnsPath, ":5353", name)
	}
	client := l.devices["a"].attach(t, "client.0.1")
	w.publish(t)
	big := strings.Repeat("x", 9000) // in fragments on a link of 1500 bytes
	for i, want := range []string{"on-a", "on-b"} {
		for _, path := range []string{l.devices["a"].path(), client.NetnsPath} {
			conn, err := dial(path, "udp4", fmt.Sprintf("10.213.1.%d:53", i))
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"one", "two", big} {
				if got, err := askUDP(conn, word); err != nil || got != want+word {
					t.Errorf("asked %.10q of %s: got %.10q, %v", word, want, got, err)
				}
			}
			_ = conn.Close()
		}
	}
}

// serveUDP answers datagrams with a name and what they said.
func serveUDP(t *testing.T, path, addr, name string) {
	t.Helper()
	var pc net.PacketConn
	if err := in(path, func() (err error) { pc, err = net.ListenPacket("udp4", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	go func() {
		buf := make([]byte, maxPacket)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(append([]byte(name), buf[:n]...), from)
		}
	}()
}

func askUDP(conn net.Conn, word string) (string, error) {
	if _, err := conn.Write([]byte(word)); err != nil {
		return "", err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	buf := make([]byte, maxPacket)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func TestNamesFromHostAndContainer(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	web := w.endpoint(t, "web", "web.0.1", "b")
	client := l.devices["a"].attach(t, "client.0.1")
	w.publish(t)
	conf, err := os.ReadFile(client.ResolvConf)
	if err != nil || !strings.Contains(string(conf), "nameserver 10.213.0.53\n") {
		t.Errorf("resolv.conf of a container: %q, %v", conf, err)
	}
	for _, path := range []string{l.devices["a"].path(), client.NetnsPath, web.NetnsPath} {
		for _, network := range []string{"udp4", "tcp4"} {
			if rcode, got := ask(t, path, network, "web.cloudless.internal."); rcode != dns.RcodeSuccess || got != "10.213.1.0" {
				t.Errorf("web over %s: %s %s", network, dns.RcodeToString[rcode], got)
			}
			if _, got := ask(t, path, network, "web-0-1.web.cloudless.internal."); got != web.IP.String() {
				t.Errorf("replica over %s: %s, want %s", network, got, web.IP)
			}
			if rcode, _ := ask(t, path, network, "nope.cloudless.internal."); rcode != dns.RcodeNameError {
				t.Errorf("nope over %s: %s, want NXDOMAIN", network, dns.RcodeToString[rcode])
			}
			if rcode, _ := ask(t, path, network, "example.org."); rcode != dns.RcodeRefused {
				t.Errorf("outside name without upstream over %s: %s, want REFUSED", network, dns.RcodeToString[rcode])
			}
		}
	}
}

// ask sends one A question to the node's resolver from inside a namespace.
func ask(t *testing.T, path, network, name string) (rcode int, addr string) {
	t.Helper()
	raw, err := dial(path, network, "10.213.0.53:53")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := &dns.Conn{Conn: raw}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	resp, err := conn.ReadMsg()
	if err != nil {
		t.Fatalf("ask for %s over %s: %v", name, network, err)
	}
	for _, rr := range resp.Answer {
		if a, ok := rr.(*dns.A); ok {
			addr = a.A.String()
		}
	}
	return resp.Rcode, addr
}

// A node that is killed and started again adopts its containers: same
// addresses, nothing twice, nothing left behind.
func TestContainersOutliveTheProcess(t *testing.T) {
	l := newLab(t, "a")
	d := l.devices["a"]
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	before := w.endpoint(t, "web", "web.0.1", "a")
	serveName(t, before.NetnsPath, ":8080", "still here")
	orphan := d.attach(t, "orphan.0.1")
	w.publish(t)

	d.kill(t)
	d.start(t)

	if after := d.attach(t, "web.0.1"); after != before {
		t.Errorf("after a crash %+v, before %+v", after, before)
	}
	if other := d.attach(t, "new.0.1"); other.IP == before.IP || other.IP == orphan.IP {
		t.Errorf("new container got %s, which is in use", other.IP)
	}
	w.publish(t)
	if got, err := get(d.path(), "10.213.1.0:80"); err != nil || got != "still here" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := d.call("sweep", order{Keep: []string{"web.0.1"}}, nil); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(before.NetnsPath))
	if err != nil || len(entries) != 1 {
		t.Errorf("namespaces after the sweep: %v, %v", entries, err)
	}
	for range 2 { // twice: detaching is idempotent
		if err := d.call("detach", order{ID: "web.0.1"}, nil); err != nil {
			t.Error(err)
		}
	}
	var links []net.Interface
	if err := in(d.path(), func() (err error) { links, err = net.Interfaces(); return err }); err != nil {
		t.Fatal(err)
	}
	if len(links) != 3 { // lo, the bridge and the cable of the virtual IPs
		t.Errorf("links after detach: %v", links)
	}
}

// A peer reaches replicas of this node on ports of their service, and nothing else.
func TestServeFlowRefusesWhatIsNotOffered(t *testing.T) {
	l := newLab(t, "a")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	a := w.endpoint(t, "web", "web.0.1", "a")
	listenIn(t, a.NetnsPath, ":8080", echo)
	w.service("db", "10.213.1.1", api.Port{Port: 5432})
	w.endpoint(t, "db", "db.0.1", "a")
	w.publish(t)
	good := header{proto: tcp, port: 80, service: "web", replica: "web.0.1"}
	for _, c := range []struct {
		name   string
		change func(*header)
		want   status
	}{
		{"what is offered", func(*header) {}, statusOK},
		{"target instead of port", func(h *header) { h.port = 8080 }, statusNotHere},
		{"other protocol", func(h *header) { h.proto = udp }, statusNotHere},
		{"unknown replica", func(h *header) { h.replica = "web.1.1" }, statusNotHere},
		{"replica of another service", func(h *header) { h.replica = "db.0.1" }, statusNotHere},
		{"unknown service", func(h *header) { h.service = "nope" }, statusNotHere},
		{"nobody listens", func(h *header) { h.service, h.replica, h.port = "db", "db.0.1", 5432 }, statusRefused},
	} {
		h := good
		c.change(&h)
		raw, err := h.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		conn, got := openFlow(t, l, raw)
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		_ = conn.Close()
	}
	if _, got := openFlow(t, l, []byte("\x00\x08GARBAGE!")); got != statusBad {
		t.Errorf("garbage: %s, want %s", got, statusBad)
	}

	raw, _ := good.append(nil)
	var answers []status
	for range 9 { // the lab's devices serve 8 flows for a peer
		conn, got := openFlow(t, l, raw)
		defer conn.Close()
		answers = append(answers, got)
	}
	if !slices.Contains(answers, statusBusy) {
		t.Errorf("answers to one peer: %v, want one to be busy", answers)
	}
}

// openFlow sends a raw header to device a and returns its answer.
func openFlow(t *testing.T, l *lab, raw []byte) (Conn, status) {
	t.Helper()
	conn, err := unixFlows(deviceConfig{ID: "stranger", Dir: l.dir}).DialFlow(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(raw); err != nil {
		t.Fatal(err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		t.Fatal(err)
	}
	return conn, status(answer[0])
}

// What listens on the host is not on any VIP, and a VIP takes no port from the host.
func TestHostAndVIPsDoNotShareSockets(t *testing.T) {
	l := newLab(t, "a")
	path := l.devices["a"].path()
	serveName(t, path, ":80", "host before")
	w := l.world()
	w.service("web", "10.213.1.0", http80, api.Port{Port: 81, Target: 8080})
	a := w.endpoint(t, "web", "web.0.1", "a")
	serveName(t, a.NetnsPath, ":8080", "web")
	serveName(t, path, ":22", "host's ssh")
	w.publish(t)
	serveName(t, path, ":81", "host after")
	for addr, want := range map[string]string{
		"127.0.0.1:80": "host before", "127.0.0.1:81": "host after", "10.213.1.0:80": "web", "10.213.1.0:81": "web",
	} {
		if got, err := get(path, addr); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", addr, got, err, want)
		}
	}
	for _, from := range []string{path, a.NetnsPath} {
		if _, err := dial(from, "tcp4", "10.213.1.0:22"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port 22 of a VIP: %v, want refused", err)
		}
	}
}

// BenchmarkSplice carries bytes from the host through a VIP to a container.
func BenchmarkSplice(b *testing.B) {
	for _, c := range []struct {
		name string
		node api.NodeID
	}{{"same-node", "a"}, {"other-node", "b"}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLab(b, "a", "b")
			w := l.world()
			w.service("sink", "10.213.1.0", http80)
			a := w.endpoint(b, "sink", "sink.0.1", c.node)
			listenIn(b, a.NetnsPath, ":8080", func(conn net.Conn) {
				_, _ = io.Copy(struct{ io.Writer }{io.Discard}, conn)
				_ = conn.Close()
			})
			w.publish(b)
			conn, err := dial(l.devices["a"].path(), "tcp4", netip.MustParseAddrPort("10.213.1.0:80").String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			block := make([]byte, 256<<10)
			b.SetBytes(int64(len(block)))
			b.ResetTimer()
			for b.Loop() {
				if _, err := conn.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = conn.Read(make([]byte, 1)) // until the last byte has arrived
		})
	}
}
