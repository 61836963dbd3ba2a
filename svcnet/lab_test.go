//go:build linux

package svcnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// A device of these tests is a network namespace in which a process of its own,
// this test binary again, runs a Network. Flows between devices travel over
// unix sockets. The test itself opens sockets in any namespace it likes.

// patience is how long a test waits for what has to happen. A busy machine with
// the race detector takes its time.
const patience = time.Minute

// deviceEnv makes the test binary a device.
const deviceEnv = "CLOUDLESS_SVCNET_DEVICE"

// deviceConfig is what the environment tells a device.
type deviceConfig struct {
	ID  api.NodeID
	Dir string // shared by the devices of a test: sockets
}

func TestMain(m *testing.M) {
	if conf := os.Getenv(deviceEnv); conf != "" {
		if err := runDevice(conf); err != nil {
			fmt.Fprintln(os.Stderr, "device:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runDevice(conf string) error {
	var dc deviceConfig
	if err := json.Unmarshal([]byte(conf), &dc); err != nil {
		return err
	}
	log, err := zap.NewDevelopment()
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	n, err := New(Config{
		Self: dc.ID, Flows: unixFlows(dc), StateDir: filepath.Join(dc.Dir, string(dc.ID)),
		ResolvConf: filepath.Join(dc.Dir, "resolv.conf"), Log: log.With(zap.String("node", string(dc.ID))), Metrics: reg,
		MaxFlowsPerPeer: 8, UDPIdle: 5 * time.Second, ConnectTimeout: 3 * time.Second,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the test holds the other end: it ends with the test, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	flows, err := net.Listen("unix", filepath.Join(dc.Dir, string(dc.ID)+".flow"))
	if err != nil {
		return err
	}
	go serveFlows(ctx, n, flows)
	ctl, err := net.Listen("unix", filepath.Join(dc.Dir, string(dc.ID)+".ctl"))
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(ctl, control(n, cancel)) }()
	if err := n.Run(ctx); err != nil {
		return err
	}
	return n.Teardown(context.Background())
}

type unixFlows deviceConfig

func (u unixFlows) DialFlow(ctx context.Context, to api.NodeID) (Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(u.Dir, string(to)+".flow"))
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "%-16s", u.ID); err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

func serveFlows(ctx context.Context, n *Network, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			peer := make([]byte, 16)
			if _, err := io.ReadFull(conn, peer); err == nil {
				n.ServeFlow(ctx, conn.(*net.UnixConn), api.NodeID(strings.TrimSpace(string(peer))))
			}
		}()
	}
}

// order is what a test asks of a device.
type order struct {
	Table  *Table
	ID     string
	Subnet netip.Prefix
	Keep   []string
}

func control(n *Network, stop func()) http.Handler {
	mux := http.NewServeMux()
	handle := func(name string, do func(context.Context, order) (any, error)) {
		mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
			var o order
			if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			v, err := do(r.Context(), o)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	handle("set", func(_ context.Context, o order) (any, error) { n.Set(*o.Table); return nil, nil })
	handle("status", func(context.Context, order) (any, error) { return n.Status(), nil })
	handle("attach", func(ctx context.Context, o order) (any, error) { return n.Attach(ctx, o.ID, o.Subnet) })
	handle("detach", func(ctx context.Context, o order) (any, error) { return nil, n.Detach(ctx, o.ID) })
	handle("sweep", func(ctx context.Context, o order) (any, error) { return nil, n.Sweep(ctx, o.Keep) })
	handle("stop", func(context.Context, order) (any, error) { stop(); return nil, nil })
	return mux
}

// lab is the devices of one test and what joins them.
type lab struct {
	dir     string
	devices map[api.NodeID]*device
}

type device struct {
	lab    *lab
	id     api.NodeID
	name   string // of its network namespace
	subnet netip.Prefix
	proc   *exec.Cmd
	exited chan struct{}
	ctl    *http.Client
}

func newLab(t testing.TB, ids ...api.NodeID) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")
	}
	dir, err := os.MkdirTemp("", "cl-svcnet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := &lab{dir: dir, devices: make(map[api.NodeID]*device)}
	for i, id := range ids {
		d := &device{
			lab: l, id: id, name: fmt.Sprintf("cl-svcnet-%d-%s", os.Getpid(), id),
			subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 214, byte(i + 1), 0}), 24),
		}
		l.devices[id] = d
		d.makeNamespace(t)
		d.start(t)
	}
	return l
}

func (d *device) path() string { return filepath.Join("/run/netns", d.name) }

func (d *device) makeNamespace(t testing.TB) {
	t.Helper()
	err := onThread(func() error {
		ns, err := netns.NewNamed(d.name)
		if err != nil {
			return err
		}
		defer ns.Close()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatalf("make network namespace %s (needs CAP_SYS_ADMIN): %v", d.name, err)
	}
	t.Cleanup(func() {
		if err := netns.DeleteNamed(d.name); err != nil {
			t.Errorf("remove namespace %s: %v", d.name, err)
		}
	})
}

// start runs the device's process inside its namespace.
func (d *device) start(t testing.TB) {
	t.Helper()
	conf, err := json.Marshal(deviceConfig{ID: d.id, Dir: d.lab.dir})
	if err != nil {
		t.Fatal(err)
	}
	d.proc = exec.Command(os.Args[0])
	d.proc.Env = append(os.Environ(), deviceEnv+"="+string(conf))
	hold, err := d.proc.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hold.Close() })
	var logs bytes.Buffer
	d.proc.Stdout, d.proc.Stderr = &logs, &logs
	if err := in(d.path(), d.proc.Start); err != nil {
		t.Fatalf("start device: %v", err)
	}
	d.exited = make(chan struct{})
	go func() {
		_ = d.proc.Wait()
		close(d.exited)
	}()
	socket := filepath.Join(d.lab.dir, string(d.id)+".ctl")
	d.ctl = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			t.Logf("log of device %s:\n%s", d.id, logs.String())
		}
	})
	eventually(t, "device "+string(d.id)+" answers", func() error { return d.call("status", order{}, nil) })
}

// stop ends the process in an orderly way; it then tears its network down.
func (d *device) stop(t testing.TB) {
	select {
	case <-d.exited:
		return
	default:
	}
	if err := d.call("stop", order{}, nil); err != nil && !errors.Is(err, io.EOF) {
		t.Logf("stop %s: %v", d.id, err)
	}
	select {
	case <-d.exited:
	case <-time.After(patience):
		t.Errorf("device %s does not stop; its goroutines:", d.id)
		_ = d.proc.Process.Signal(syscall.SIGQUIT)
		<-d.exited
	}
}

// kill ends the process as a crash would, and removes its sockets.
func (d *device) kill(t testing.TB) {
	t.Helper()
	if err := d.proc.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.exited
	for _, s := range []string{".ctl", ".flow"} {
		_ = os.Remove(filepath.Join(d.lab.dir, string(d.id)+s))
	}
}

func (d *device) call(what string, o order, answer any) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	resp, err := d.ctl.Post("http://device/"+what, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// attach makes the network of a container.
func (d *device) attach(t testing.TB, id string) Attachment {
	t.Helper()
	var a Attachment
	if err := d.call("attach", order{ID: id, Subnet: d.subnet}, &a); err != nil {
		t.Fatalf("attach %s to %s: %v", id, d.id, err)
	}
	return a
}

// world is a table in the making, the same for every device but for what is local.
type world struct {
	lab      *lab
	index    uint64
	services []api.ServiceStatus
	local    map[api.NodeID]map[api.ReplicaID]LocalEndpoint
}

func (l *lab) world() *world {
	return &world{lab: l, local: make(map[api.NodeID]map[api.ReplicaID]LocalEndpoint)}
}

func (w *world) service(name, vip string, ports ...api.Port) {
	w.services = append(w.services, api.ServiceStatus{Service: api.Service{Name: name, VIP: vip, Ports: ports}})
}

// endpoint adds a ready replica, and attaches a container for it where its node
// is a device of the lab.
func (w *world) endpoint(t testing.TB, service string, replica api.ReplicaID, node api.NodeID) Attachment {
	t.Helper()
	var a Attachment
	if d := w.lab.devices[node]; d != nil {
		a = d.attach(t, string(replica))
		if w.local[node] == nil {
			w.local[node] = make(map[api.ReplicaID]LocalEndpoint)
		}
		w.local[node][replica] = LocalEndpoint{IP: a.IP}
	}
	for i := range w.services {
		if w.services[i].Name == service {
			w.services[i].Endpoints = append(w.services[i].Endpoints,
				api.Endpoint{Replica: replica, Node: node, Address: a.IP.String(), Ready: true})
		}
	}
	return a
}

// publish sets the table on every device and waits until it is in effect.
func (w *world) publish(t testing.TB) {
	t.Helper()
	w.index++
	for id, d := range w.lab.devices {
		table := Table{Index: w.index, Subnet: d.subnet, Services: w.services, Local: w.local[id]}
		if err := d.call("set", order{Table: &table}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for id, d := range w.lab.devices {
		eventually(t, "table in effect on "+string(id), func() error {
			var s Status
			if err := d.call("status", order{}, &s); err != nil {
				return err
			}
			if s.Index != w.index || len(s.Problems) > 0 {
				return fmt.Errorf("index %d, want %d; problems %q", s.Index, w.index, s.Problems)
			}
			return nil
		})
	}
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		runtime.Gosched()
		<-time.After(10 * time.Millisecond)
	}
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// in runs f inside a network namespace: sockets it opens stay there.
func in(path string, f func() error) error {
	return onThread(func() error {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

// dial opens a connection from inside a namespace.
func dial(path, network, addr string) (conn net.Conn, err error) {
	err = in(path, func() (err error) {
		conn, err = net.DialTimeout(network, addr, patience)
		return err
	})
	if err == nil { // so that a broken flow fails a test instead of holding it
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// listenIn opens a TCP listener inside a namespace and serves each connection.
func listenIn(t testing.TB, path, addr string, serve func(net.Conn)) net.Listener {
	t.Helper()
	var ln net.Listener
	if err := in(path, func() (err error) { ln, err = net.Listen("tcp4", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return ln
}

// serveName answers every HTTP request in a container with a name and the
// client's address.
func serveName(t testing.TB, path, addr, name string) {
	t.Helper()
	var ln net.Listener
	if err := in(path, func() (err error) { ln, err = net.Listen("tcp4", addr); return err }); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, name)
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
}

// get fetches http://addr/ from inside a namespace.
func get(path, addr string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial(path, "tcp4", addr) },
	}}
	resp, err := client.Get("http://" + addr + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
