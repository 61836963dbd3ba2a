//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// found is what a port scan of one address found: TCP ports that accept, and
// UDP ports that answer.
type found struct {
	TCP []int `json:"tcp"`
	UDP []int `json:"udp"`
}

const (
	scanParallel = 2000
	scanPatience = time.Second
	lookPatience = 10 * time.Second // with the ports that most likely answer, before the others are swept
)

// scan looks at every TCP port of an address, and says something to the given
// UDP ports that somebody who listens there would answer. It prints what it found.
func scan(addr, udp string) int {
	out := found{TCP: []int{}, UDP: []int{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, scanParallel)
	try := func(port int, patience time.Duration, answers func(string, time.Duration) bool, list *[]int) {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if answers(net.JoinHostPort(addr, strconv.Itoa(port)), patience) {
				mu.Lock()
				defer mu.Unlock()
				*list = append(*list, port)
			}
		})
	}
	for _, text := range strings.Split(udp, ",") {
		port, err := strconv.Atoi(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		try(port, lookPatience, answersUDP, &out.UDP)
	}
	for _, port := range usualPorts {
		try(port, lookPatience, acceptsTCP, &out.TCP)
	}
	group.Wait()
	for port := 1; port < 1<<16; port++ {
		if !slices.Contains(usualPorts, port) {
			try(port, scanPatience, acceptsTCP, &out.TCP)
		}
	}
	group.Wait()
	slices.Sort(out.TCP)
	slices.Sort(out.UDP)
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// usualPorts are those of names, of services and of the mesh.
var usualPorts = []int{53, 80, 4717}

func acceptsTCP(addr string, patience time.Duration) bool {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// answersUDP sends a question for a name, and a QUIC packet of a version that
// does not exist, which every QUIC server answers with those that it speaks.
func answersUDP(addr string, patience time.Duration) bool {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	query := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x09cloudless\x08internal\x00\x00\x01\x00\x01")
	quic := append([]byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1200)...)
	for _, packet := range [][]byte{query, quic} {
		_, _ = c.Write(packet)
	}
	n, err := c.Read(make([]byte, 1500))
	return n > 0 && err == nil
}

// scanFrom runs scan on a device, by a command in front of it if one is given.
func scanFrom(t *testing.T, d *testnet.Device, addr string, udp []string, in ...string) found {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	out, err := d.Output(t.Context(), append(in, self, "scan", addr, strings.Join(udp, ","))...)
	must(t, err)
	var f found
	must(t, json.Unmarshal([]byte(out), &f))
	return f
}

// udpPorts are those on which a device listens.
func udpPorts(t *testing.T, d *testnet.Device) []string {
	t.Helper()
	out, err := d.Output(t.Context(), "ss", "-H", "-lnu")
	must(t, err)
	ports := []string{"53", "4717"}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		if _, port, err := net.SplitHostPort(f[3]); err == nil && !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

// TestPortScans: from the internet, from the LAN and from inside a workload,
// nothing of a running node answers but the mesh; and to a workload not even
// that, but names and services (NFR-S1).
func TestPortScans(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lab := newCluster(t, "pi")
	vps, pi, nas, laptop := lab.Device("vps"), lab.Device("pi"), lab.Device("nas"), lab.Device("laptop")
	importWeb(t, lab, pi)
	must(t, vps.Apply(ctx, onlyOn("web", "pi")))
	_, err := vps.AwaitReplicas(ctx, patient, "web", 1)
	must(t, err)
	awaitAnswer(t, pi, webURL)
	udp := udpPorts(t, pi)
	mesh := func(port int) bool { return port == 4717 }

	check := func(where string, f found, tcp, udp func(int) bool) {
		t.Helper()
		t.Logf("%-28s %+v", where, f)
		for _, port := range f.TCP {
			if !tcp(port) {
				t.Errorf("%s: TCP port %d accepts", where, port)
			}
		}
		for _, port := range f.UDP {
			if !udp(port) {
				t.Errorf("%s: UDP port %d answers", where, port)
			}
		}
	}
	quic := func(port int) bool { return port != 53 && port != 5353 } // a node behind NAT draws its ports
	check("vps from the internet", scanFrom(t, laptop, vps.Addr.String(), udpPorts(t, vps)), mesh, quic)
	check("pi from its LAN", scanFrom(t, nas, pi.Addr.String(), udp), mesh, quic)

	// What a program in a container sees.
	pid := strings.Fields(pgrep(t, pi))[0]
	inside := []string{"nsenter", "-t", pid, "-n"}
	route, err := pi.Output(ctx, append(inside, "ip", "-4", "route", "show", "default")...)
	must(t, err)
	gateway := strings.Fields(route)[2]
	dns := func(port int) bool { return port == 53 }
	nothing := func(int) bool { return false }
	names := scanFrom(t, pi, "10.213.0.53", udp, inside...)
	check("names from a workload", names, dns, dns)
	if len(names.TCP)+len(names.UDP) != 2 {
		t.Errorf("names are not served: %+v: is the test still complete?", names)
	}
	check("gateway from a workload", scanFrom(t, pi, gateway, udp, inside...), dns, dns)
	check("own host from a workload", scanFrom(t, pi, pi.Addr.String(), udp, inside...), nothing, nothing)
	var services []testnet.Service
	must(t, pi.CloudlessJSON(ctx, &services, "network", "services"))
	for _, s := range services {
		check(s.Name+" from a workload", scanFrom(t, pi, s.VIP, udp, inside...), func(port int) bool { return port == 80 }, nothing)
	}
}

// TestStrangerIsNotRelayed: a stranger who knows a member behind NAT, and the
// relay in front of it, does not get to it (CLD-REQ-001).
func TestStrangerIsNotRelayed(t *testing.T) {
	lab := newCluster(t, "pi")
	vps, laptop := lab.Device("vps"), lab.Device("laptop")
	self, err := os.Executable()
	must(t, err)
	for _, transport := range []string{"udp/4717/quic-v1", "tcp/4717"} {
		addr := fmt.Sprintf("/ip4/%s/%s/p2p/%s/p2p-circuit/p2p/%s", vps.Addr, transport, idOf(t, vps, "vps"), idOf(t, vps, "pi"))
		out, err := laptop.Output(t.Context(), self, "stranger", addr)
		if err == nil {
			t.Errorf("a stranger was relayed over %s: %s", transport, out)
		} else if !strings.Contains(err.Error(), "0xc1d01") { // not admitted
			t.Errorf("not the refusal of a stranger: %v", err)
		}
	}
}
