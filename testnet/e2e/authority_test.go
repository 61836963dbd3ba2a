//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// authority is what `anchor authority -o json` prints.
type authority struct {
	Phase       string `json:"phase"`
	Current     bool   `json:"current"`
	Generations []struct {
		Issues    bool    `json:"issues"`
		Certified int     `json:"certified"`
		Nodes     int     `json:"nodes"`
		RetiredAt *string `json:"retired_at"`
	} `json:"generations"`
}

// TestAuthorityIsReplacedUnderTraffic: a whole change of the key that signs the
// certificates, until the old one does not count any more, while a service is
// read slowly and a command runs in a container; no stream is lost and no daemon
// restarts (CLD-REQ-060).
func TestAuthorityIsReplacedUnderTraffic(t *testing.T) {
	t.Parallel()
	const ballast = 64 << 20
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	vps, pi, nas, desk := lab.Device("vps"), lab.Device("pi"), lab.Device("nas"), lab.Device("desk")
	archive := filepath.Join(lab.Dir, "web.tar")
	must(t, testnet.WriteWebImage(archive, testnet.WebImage, ballast))
	cloudless(t, pi, "image", "import", archive)
	w := runWeb(t, desk, 2)
	awaitAnswer(t, vps, webURL)
	before := pids(t, vps, pi, nas, desk)

	// Both streams are open before the change begins, and end when it is over.
	download := make(chan error, 1)
	got := filepath.Join(vps.Dir, "home", "ballast")
	go func() {
		_, err := vps.Output(ctx, "curl", "-fsS", "--limit-rate", "1M", "-o", got, "-w", "%{size_download}", webURL+"ballast")
		download <- err
	}()
	replica := w.Ready()[0].ID
	command := make(chan error, 1)
	var ticks bytes.Buffer
	go func() {
		command <- vps.Run(ctx, testnet.Cmd{
			Args:   []string{binary, "workload", "exec", replica, "--", "sh", "-c", "i=0; while [ $i -lt 60 ]; do echo tick; sleep 1; i=$((i+1)); done"},
			Stdout: &ticks,
		})
	}()

	var st authority
	must(t, desk.CloudlessJSON(ctx, &st, "anchor", "rotate-ca", "--wait"))
	if st.Phase != "issuing" || !st.Current || !st.Generations[1].Issues || st.Generations[1].Certified != 4 {
		t.Errorf("with overlap: %+v", st)
	}
	must(t, vps.CloudlessJSON(ctx, &st, "anchor", "rotate-ca", "--now", "--wait"))
	if st.Phase != "settled" || st.Generations[2].Certified != 4 || st.Generations[0].RetiredAt == nil || st.Generations[1].RetiredAt == nil {
		t.Errorf("without: %+v", st)
	}
	if err := <-command; err != nil || strings.Count(ticks.String(), "tick\n") != 60 {
		t.Errorf("a command in a container was cut off after %d ticks: %v", strings.Count(ticks.String(), "tick\n"), err)
	}
	must(t, <-download)
	if out, err := vps.Output(ctx, "stat", "-c", "%s", got); err != nil || strings.TrimSpace(out) != fmt.Sprint(ballast) {
		t.Errorf("a download was cut off at %s bytes, %v", out, err)
	}
	if after := pids(t, vps, pi, nas, desk); after != before {
		t.Errorf("daemons restarted: %s, before %s", after, before)
	}
	awaitAnswer(t, desk, webURL)
}

func pids(t *testing.T, devices ...*testnet.Device) string {
	t.Helper()
	var all []string
	for _, d := range devices {
		pid, err := d.NodePID(t.Context())
		must(t, err)
		all = append(all, fmt.Sprintf("%s %d", d.Name, pid))
	}
	return strings.Join(all, ", ")
}

// TestClonedDevice: a device's data directory is copied to another one, and both
// run: both are told, the cluster tells, and what runs goes on (CLD-REQ-060).
func TestClonedDevice(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas")
	vps, pi, laptop := lab.Device("vps"), lab.Device("pi"), lab.Device("laptop")
	importWeb(t, lab, pi)
	w := runWeb(t, vps, 2)
	if _, on := w.On("pi"); !on {
		t.Fatalf("no replica runs on the device that is to be cloned: %v", w.Places())
	}
	process := pgrep(t, pi)

	var image bytes.Buffer
	must(t, pi.Run(ctx, testnet.Cmd{
		Args:   []string{"tar", "-C", testnet.DataDir, "--exclude=./lock", "--exclude=./containerd*", "--exclude=*.sock", "-cf", "-", "."},
		Stdout: &image,
	}))
	must(t, laptop.Run(ctx, testnet.Cmd{Args: []string{"mkdir", "-p", "-m", "700", testnet.DataDir}}))
	must(t, laptop.Run(ctx, testnet.Cmd{Args: []string{"tar", "-C", testnet.DataDir, "-xf", "-"}, Stdin: &image}))
	must(t, laptop.Start(ctx, "--no-workloads"))

	for _, d := range []*testnet.Device{pi, laptop} {
		await(t, d.Name+" to say that it has a twin", func(ctx context.Context) error {
			_, err := d.Cloudless(ctx, "node", "list")
			if err == nil || !strings.Contains(err.Error(), "another device runs with the identity of this node") || !strings.Contains(err.Error(), "wipe "+testnet.DataDir) {
				return fmt.Errorf("it says %w", err)
			}
			if !strings.Contains(d.LogTail(10000), "another device runs with the identity of this node") {
				return fmt.Errorf("its log does not tell")
			}
			return nil
		})
	}
	await(t, "the cluster to tell", func(ctx context.Context) error {
		var n struct {
			Problem string `json:"problem"`
		}
		if err := vps.CloudlessJSON(ctx, &n, "node", "show", "pi"); err != nil {
			return err
		}
		if !strings.Contains(n.Problem, "two devices run with its identity") {
			return fmt.Errorf("the problem of pi is %q", n.Problem)
		}
		return nil
	})
	var events []testnet.Event
	must(t, vps.CloudlessJSON(ctx, &events, "events", "--for", "node/pi"))
	found := false
	for _, e := range events {
		found = found || e.Code == "CLD5014" && e.Type == "security"
	}
	if !found {
		t.Errorf("no event tells of it: %+v", events)
	}
	if now := pgrep(t, pi); now != process {
		t.Errorf("the container's process on the original is %q, was %q", now, process)
	}

	// One of the two is put right, as the message says.
	must(t, laptop.SignalNode(ctx, 15))
	_, err := laptop.WaitNode(ctx)
	must(t, err)
	await(t, "the original to be alone again", func(ctx context.Context) error {
		_, err := pi.Cloudless(ctx, "node", "list")
		return err
	})
}
