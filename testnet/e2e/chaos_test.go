//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// anchorsLab is three machines with public addresses that are all anchors and
// run nothing; the disk of vc is small.
func anchorsLab(t *testing.T) *testnet.Lab {
	t.Helper()
	ctx := t.Context()
	lab := newLabOf(t, testnet.Topology{Sites: []testnet.Site{
		{Name: "cloud-a", NAT: testnet.Public, Devices: []string{"va"}},
		{Name: "cloud-b", NAT: testnet.Public, Devices: []string{"vb"}},
		{Name: "cloud-c", NAT: testnet.Public, Devices: []string{"vc"}},
	}})
	va, vc := lab.Device("va"), lab.Device("vc")
	_, err := vc.Output(ctx, "mount", "-t", "tmpfs", "-o", "size=200m,mode=700", "tmpfs", testnet.DataDir)
	must(t, err)
	flags := []string{"--public", "yes", "--no-workloads", "--anchor", "always"}
	must(t, va.Start(ctx, append(flags, "--init")...))
	await(t, "va to lead", func(ctx context.Context) error {
		_, err := va.Nodes(ctx)
		return err
	})
	for _, name := range []string{"vb", "vc"} {
		var token testnet.Token
		must(t, va.CloudlessJSON(ctx, &token, "token", "create"))
		must(t, lab.Device(name).Start(ctx, append(flags, "--join", token.Token)...))
	}
	awaitStandings(t, va, map[string]string{"va": "voter", "vb": "voter", "vc": "voter"})
	return lab
}

// chaos is a cluster of three anchors in trouble.
type chaos struct {
	t   *testing.T
	lab *testnet.Lab
}

// leader waits for one and returns it, and one that follows.
func (c *chaos) leader() (leads, follows *testnet.Device) {
	c.t.Helper()
	await(c.t, "a leader", func(ctx context.Context) error {
		for _, d := range c.lab.Devices() {
			got, err := standings(ctx, d)
			if err != nil {
				continue
			}
			leads, follows = nil, nil
			for name, standing := range got {
				switch standing {
				case "leader":
					leads = c.lab.Device(name)
				case "voter":
					follows = c.lab.Device(name)
				}
			}
			if leads != nil && follows != nil {
				return nil
			}
		}
		return fmt.Errorf("nobody knows one")
	})
	return leads, follows
}

// converges waits until all three vote and none lags.
func (c *chaos) converges(lag uint64) {
	c.t.Helper()
	await(c.t, "all three to vote and to keep up", func(ctx context.Context) error {
		for _, d := range c.lab.Devices() {
			var list []anchorStatus
			if err := d.CloudlessJSON(ctx, &list, "anchor", "list"); err != nil {
				return err
			}
			for _, a := range list {
				if a.Standing != "voter" && a.Standing != "leader" || !a.Reachable || a.Behind > lag {
					return fmt.Errorf("%s sees %+v", d.Name, list)
				}
			}
			if len(list) != 3 {
				return fmt.Errorf("%s sees %+v", d.Name, list)
			}
		}
		return nil
	})
}

func (c *chaos) restart(d *testnet.Device, with syscall.Signal) {
	c.t.Helper()
	must(c.t, d.SignalNode(c.t.Context(), with))
	_, err := d.WaitNode(c.t.Context())
	must(c.t, err)
	must(c.t, d.Restart(c.t.Context()))
}

// pause lets a fault last: there is no condition to wait for.
func (c *chaos) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.t.Context().Done():
	}
}

// electionTimeout is the longest that a follower waits on a LAN before it stands
// for election.
const electionTimeout = 2 * time.Second

// TestChaos: clients read, write, and compare and set at three anchors while
// these are restarted, killed, stopped, cut off in one direction, and while the
// disk of one fills up and the log of one is torn. What the clients saw is
// linearizable, and after each fault all three vote and agree (CLD-REQ-012,
// NFR-R1).
func TestChaos(t *testing.T) {
	c := &chaos{t, anchorsLab(t)}
	ctx := t.Context()
	for i := range registers {
		manifest := fmt.Sprintf("apiVersion: cloudless/v1\nkind: Workload\nmetadata: {name: reg%d, labels: {%s: \"\"}}\nspec: {image: %s, replicas: 0}\n", i, valueLabel, registerImage)
		must(t, c.lab.Device("va").Apply(ctx, manifest))
	}
	h := &history{t: t}
	for i, name := range []string{"va", "vb", "vc", "va", "vb", "vc"} {
		h.attend(c.lab.Device(name), i+1)
	}
	begun := time.Now()
	for _, f := range []struct {
		name string
		do   func()
	}{
		{"rolling restarts", func() {
			for _, d := range c.lab.Devices() {
				c.restart(d, syscall.SIGTERM)
				c.converges(200)
			}
		}},
		{"the leader killed", func() {
			leads, _ := c.leader()
			c.restart(leads, syscall.SIGKILL)
		}},
		{"the leader stopped for two election timeouts", func() {
			leads, _ := c.leader()
			must(t, leads.SignalNode(ctx, syscall.SIGSTOP))
			c.pause(2 * electionTimeout)
			must(t, leads.SignalNode(ctx, syscall.SIGCONT))
		}},
		{"the leader is heard no more, and hears", c.muteLeader},
		{"a full disk", c.fillDisk},
		{"a torn log", c.tearLog},
	} {
		start := time.Now()
		f.do()
		h.goesOn(f.name)
		c.converges(200)
		t.Logf("%-48s healed after %s, %d writes acknowledged so far", f.name, time.Since(start).Round(100*time.Millisecond), h.acknowledged())
	}
	all := h.end()
	t.Logf("%s of chaos", time.Since(begun).Round(time.Second))
	checkLinearizable(t, all)
	c.converges(0)
	c.agree()
}

// muteLeader drops what the leader sends, while what the others send arrives.
func (c *chaos) muteLeader() {
	leads, _ := c.leader()
	const rules = `table inet chaos {
	chain out {
		type filter hook output priority 0; policy accept;
		oifname != "lo" drop
	}
}
`
	ctx := c.t.Context()
	must(c.t, leads.Run(ctx, testnet.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: strings.NewReader(rules)}))
	await(c.t, "another one to lead", func(ctx context.Context) error {
		for _, d := range c.lab.Devices() {
			if d == leads {
				continue
			}
			got, err := standings(ctx, d)
			if err != nil {
				return err
			}
			if got[leads.Name] == "leader" {
				return fmt.Errorf("the anchors are %v", got)
			}
		}
		return nil
	})
	_, err := leads.Output(ctx, "nft", "delete", "table", "inet", "chaos")
	must(c.t, err)
}

// fillDisk fills the disk of vc while it leads. It steps back, and goes on as a
// node, until there is room.
func (c *chaos) fillDisk() {
	ctx := c.t.Context()
	vc := c.lab.Device("vc")
	filler := path.Join(testnet.DataDir, "filler")
	await(c.t, "vc to lead", func(ctx context.Context) error {
		_, err := vc.Cloudless(ctx, "anchor", "transfer", "vc")
		return err
	})
	_, err := vc.Output(ctx, "sh", "-c", "dd if=/dev/zero of="+filler+" bs=1M 2>/dev/null; true")
	must(c.t, err)
	n := 0
	await(c.t, "vc to halt", func(ctx context.Context) error {
		for range 8 { // until the log needs another file
			n++
			var exit *testnet.ExitError
			if err := c.lab.Device("va").Apply(ctx, bulky(n)); errors.As(err, &exit) && exit.Code == exitUsage {
				c.t.Fatal(err) // others fail while there is no leader
			}
		}
		got, err := standings(ctx, c.lab.Device("va"))
		if err == nil && got["vc"] != "halted" {
			err = fmt.Errorf("the anchors are %v", got)
		}
		return err
	})
	if _, err := vc.NodePID(ctx); err != nil {
		c.t.Errorf("the daemon of vc: %v", err)
	}
	_, err = vc.Output(ctx, "rm", filler)
	must(c.t, err)
}

// bulky is a manifest that fills a log.
func bulky(n int) string {
	env := fmt.Sprintf("N: \"%d\"", n)
	for i := range 100 {
		env += fmt.Sprintf(", BULK%d: \"%s\"", i, strings.Repeat("x", 1000))
	}
	return fmt.Sprintf("apiVersion: cloudless/v1\nkind: Workload\nmetadata: {name: bulky}\nspec: {image: %s, replicas: 0, env: {%s}}\n", registerImage, env)
}

// tearLog overwrites the middle of a follower's log while its daemon is dead.
// The others take it out of the group, and it comes in anew.
func (c *chaos) tearLog() {
	_, follows := c.leader()
	ctx := c.t.Context()
	must(c.t, follows.SignalNode(ctx, syscall.SIGKILL))
	_, err := follows.WaitNode(ctx)
	must(c.t, err)
	const tear = `set -e; cd "$1/raft/wal"; f=$(ls *.wal | tail -n 1); printf 'this is no entry of a log' | dd of="$f" bs=1 seek=400 conv=notrunc 2>/dev/null`
	_, err = follows.Output(ctx, "sh", "-c", tear, "sh", testnet.DataDir)
	must(c.t, err)
	must(c.t, follows.Restart(ctx))
	await(c.t, follows.Name+" to set its log aside", func(ctx context.Context) error {
		_, err := follows.Output(ctx, "test", "-d", testnet.DataDir+"/raft.damaged")
		return err
	})
}

// agree makes each anchor lead in turn and compares what they tell of the state.
func (c *chaos) agree() {
	c.t.Helper()
	var first string
	for _, d := range c.lab.Devices() {
		await(c.t, d.Name+" to lead", func(ctx context.Context) error {
			if _, err := d.Cloudless(ctx, "anchor", "transfer", d.Name); err != nil {
				return err
			}
			got, err := standings(ctx, d)
			if err == nil && got[d.Name] != "leader" {
				err = fmt.Errorf("the anchors are %v", got)
			}
			return err
		})
		told := cloudless(c.t, d, "workload", "list", "-o", "json") + cloudless(c.t, d, "token", "list", "-o", "json")
		for i := range registers {
			told += cloudless(c.t, d, "workload", "show", fmt.Sprintf("reg%d", i), "-o", "json")
		}
		if first == "" {
			first = told
		} else if told != first {
			c.t.Errorf("%s has another state than va:\n%s\n%s", d.Name, told, first)
		}
	}
}
