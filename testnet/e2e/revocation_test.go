//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// hold opens a connection, says that it is open, and then when it has ended.
func hold(addr string) int {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n")); err != nil { // and no more
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, c)
	fmt.Println(time.Now().UnixNano())
	return 0
}

// held is something that a device has open.
type held struct {
	what  string
	ended chan time.Time
}

// holdOpen keeps a connection from a device to a service open.
func holdOpen(t *testing.T, d *testnet.Device, service string) held {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	awaitAnswer(t, d, "http://"+service+".cloudless.internal/")
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(d.Run(t.Context(), testnet.Cmd{Args: []string{self, "hold", service + ".cloudless.internal:80"}, Stdout: w}))
	}()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("%s does not reach %s: %q, %v", d.Name, service, lines.Text(), lines.Err())
	}
	h := held{what: d.Name + " → " + service, ended: make(chan time.Time, 1)}
	go func() {
		if lines.Scan() {
			h.ended <- time.Now()
		}
	}()
	return h
}

// follow keeps a stream of the API open.
func follow(t *testing.T, d *testnet.Device) held {
	t.Helper()
	h := held{what: d.Name + " → events", ended: make(chan time.Time, 1)}
	r, w := io.Pipe()
	go func() {
		_ = d.Run(t.Context(), testnet.Cmd{Args: []string{binary, "events", "--follow"}, Stdout: w})
		h.ended <- time.Now()
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	if !lines.Scan() {
		t.Fatalf("%s hears no events", d.Name)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	return h
}

func (h held) await(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	select {
	case at := <-h.ended:
		return at.Sub(since)
	case <-time.After(patient):
		t.Errorf("%s is still open %s later", h.what, patient)
		return patient
	}
}

// sees reports whether a device is connected to another as to a member.
func sees(ctx context.Context, d *testnet.Device, name string) (bool, error) {
	peers, err := d.Peers(ctx)
	if err != nil {
		return false, err
	}
	for _, p := range peers {
		if p.Name == name || p.ID == name {
			return true, nil
		}
	}
	return false, nil
}

// idOf returns the PeerID of a node.
func idOf(t *testing.T, by *testnet.Device, name string) string {
	t.Helper()
	nodes, err := by.Nodes(t.Context())
	must(t, err)
	for _, n := range nodes {
		if n.Name == name {
			return n.ID
		}
	}
	t.Fatalf("there is no node %s", name)
	return ""
}

func awaitSeen(t *testing.T, d *testnet.Device, id string, want bool) {
	t.Helper()
	await(t, fmt.Sprintf("%s to be connected to the node: %v", d.Name, want), func(ctx context.Context) error {
		got, err := sees(ctx, d, id)
		if err == nil && got != want {
			err = fmt.Errorf("it is: %v", got)
		}
		return err
	})
}

// awaitTold waits until a device's own command line says that it was removed.
func awaitTold(t *testing.T, d *testnet.Device, reason string) {
	t.Helper()
	await(t, d.Name+" to know that it was removed", func(ctx context.Context) error {
		_, err := d.Cloudless(ctx, "node", "list")
		var exit *testnet.ExitError
		if !errors.As(err, &exit) || exit.Code != exitDenied ||
			!strings.Contains(exit.Stderr, "removed from the cluster at") || !strings.Contains(exit.Stderr, reason) {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	await(t, "the containers of "+d.Name+" to end", func(ctx context.Context) error {
		if out, err := d.Output(ctx, "busybox", "pidof", "httpd"); err == nil {
			return fmt.Errorf("one runs: %s", out)
		}
		return nil
	})
}

func onlyOn(service, node string) string {
	return strings.Replace(testnet.WebManifest(service, 1), "affinity: [{key: zone, operator: NotIn, values: [cloud], weight: 80}]",
		fmt.Sprintf("affinity: [{key: name, operator: In, values: [%s], required: true}]", node), 1)
}

// TestRemovalCutsEverything: `node remove` ends what the node has open with
// every member, over LAN, direct and relayed paths, in both directions, and no
// member is connected to it any longer (CLD-REQ-060).
func TestRemovalCutsEverything(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi, nas, desk := lab.Device("vps"), lab.Device("pi"), lab.Device("nas"), lab.Device("desk")
	importWeb(t, lab, pi)
	for service, on := range map[string]*testnet.Device{"near": nas, "far": desk, "public": vps, "mine": pi} {
		must(t, vps.Apply(ctx, onlyOn(service, on.Name)))
		_, err := vps.AwaitReplicas(ctx, patient, service, 1)
		must(t, err)
	}
	id := idOf(t, vps, "pi")
	for _, d := range []*testnet.Device{vps, nas, desk} {
		awaitSeen(t, d, id, true)
	}
	open := []held{
		holdOpen(t, pi, "near"), holdOpen(t, pi, "far"), holdOpen(t, pi, "public"),
		holdOpen(t, nas, "mine"), holdOpen(t, desk, "mine"), follow(t, pi),
	}
	start := time.Now()
	cloudless(t, nas, "node", "remove", "pi", "--yes", "--reason", "it was stolen")
	t.Logf("node remove returned after %s", time.Since(start).Round(time.Millisecond))
	for _, h := range open {
		t.Logf("%-16s ended after %s", h.what, h.await(t, start).Round(time.Millisecond))
	}
	for _, d := range []*testnet.Device{vps, nas, desk} {
		awaitSeen(t, d, id, false)
	}
	t.Logf("nobody is connected to it after %s", time.Since(start).Round(time.Millisecond))
	awaitTold(t, pi, "it was stolen")
	for _, service := range []string{"near", "far", "public"} {
		if out, err := pi.Output(ctx, "curl", "-fsS", "-m", "3", "http://"+service+".cloudless.internal/"); err == nil {
			t.Errorf("pi still reaches %s: %q", service, out)
		}
	}
	awaitAnswer(t, nas, "http://far.cloudless.internal/") // members are not cut off from each other
}

// TestRemovalReachesTheAbsent: a node that had no power when it was removed
// hears of it when it comes back, and stops what it ran; a member that was cut
// off from the anchors refuses the removed node as soon as it is back
// (CLD-REQ-060).
func TestRemovalReachesTheAbsent(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi, nas, desk := lab.Device("vps"), lab.Device("pi"), lab.Device("nas"), lab.Device("desk")
	importWeb(t, lab, desk)
	must(t, vps.Apply(ctx, onlyOn("web", "desk")))
	_, err := vps.AwaitReplicas(ctx, patient, "web", 1)
	must(t, err)

	must(t, desk.Kill(ctx))
	cloudless(t, vps, "node", "remove", "desk", "--yes", "--reason", "lost in the mail")
	must(t, desk.Boot(ctx))
	start := time.Now()
	awaitTold(t, desk, "lost in the mail")
	t.Logf("desk knows %s after its boot", time.Since(start).Round(10*time.Millisecond))

	id := idOf(t, vps, "pi")
	awaitSeen(t, nas, id, true)
	must(t, nas.Cut(ctx))
	cloudless(t, vps, "node", "remove", "pi", "--yes", "--reason", "sold")
	awaitTold(t, pi, "sold")
	must(t, nas.Heal(ctx))
	start = time.Now()
	await(t, "nas to know of the removal", func(context.Context) error {
		if !strings.Contains(nas.LogTail(200), "an identity was revoked") || !strings.Contains(nas.LogTail(200), id) {
			return errors.New("its log says nothing")
		}
		return nil
	})
	t.Logf("nas knows %s after it was plugged in", time.Since(start).Round(10*time.Millisecond))
	awaitSeen(t, nas, id, false)
}
