//go:build linux

package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// What follows reads the command line's JSON into types of its own, on purpose:
// the lab sees of the product what a script sees, and notices when a field that
// scripts rely on changes its name.

// Node is a node as `node list -o json` shows it.
type Node struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	State string   `json:"state"`
	Zone  string   `json:"zone"`
	Roles []string `json:"roles"`
	Path  string   `json:"path"`
	RTT   float64  `json:"rtt_ms"`
	NAT   string   `json:"nat"`
}

// Peer is a peer as `network peers -o json` shows it.
type Peer struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Path      string  `json:"path"`
	Transport string  `json:"transport"`
	Address   string  `json:"address"`
	RTT       float64 `json:"rtt_ms"`
}

// Workload is a workload as `workload show -o json` shows it.
type Workload struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Revision int    `json:"revision"`
	Message  string `json:"message"`
	Replicas struct {
		Desired int `json:"desired"`
		Running int `json:"running"`
		Ready   int `json:"ready"`
	} `json:"replicas"`
	List []Replica `json:"replica_list"`
}

// Replica is one replica of a workload.
type Replica struct {
	ID         string    `json:"id"`
	Slot       int       `json:"slot"`
	Generation int       `json:"generation"`
	Revision   int       `json:"revision"`
	Node       string    `json:"node"`
	NodeName   string    `json:"node_name"`
	State      string    `json:"state"`
	Reason     string    `json:"reason"`
	Restarts   int       `json:"restarts"`
	StartedAt  time.Time `json:"started_at"`
	Address    string    `json:"address"`
}

// Ready returns the replicas that take traffic.
func (w *Workload) Ready() []Replica {
	return slices.DeleteFunc(slices.Clone(w.List), func(r Replica) bool { return r.State != "Ready" })
}

// On returns the ready replica on a node.
func (w *Workload) On(node string) (Replica, bool) {
	for _, r := range w.Ready() {
		if r.NodeName == node {
			return r, true
		}
	}
	return Replica{}, false
}

// Places names the nodes of the ready replicas, sorted.
func (w *Workload) Places() []string {
	var names []string
	for _, r := range w.Ready() {
		names = append(names, r.NodeName)
	}
	slices.Sort(names)
	return names
}

// Service is a service as `network services -o json` shows it.
type Service struct {
	Name string `json:"name"`
	VIP  string `json:"vip"`
	DNS  string `json:"dns"`
}

// Event is an event as `events -o json` shows it.
type Event struct {
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"`
	Type   string    `json:"type"`
	Code   string    `json:"code"`
	Reason string    `json:"reason"`
	Object struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"object"`
	Message string `json:"message"`
}

// Token is what `token create -o json` prints.
type Token struct {
	Token string `json:"token"`
	ID    string `json:"id"`
	Role  string `json:"role"`
	Uses  int    `json:"uses"`
}

// Cloudless runs the command line on the device and returns what it printed.
func (d *Device) Cloudless(ctx context.Context, args ...string) (string, error) {
	if d.lab.Binary == "" {
		return "", fmt.Errorf("run cloudless on %s: the lab was built without its binary", d.Name)
	}
	return d.Output(ctx, append([]string{d.lab.Binary}, args...)...)
}

// CloudlessJSON runs the command line with -o json and decodes what it printed.
// What a node knew last, because no anchor answered, is an error here: tests
// wait for what is.
func (d *Device) CloudlessJSON(ctx context.Context, into any, args ...string) error {
	out, err := d.Cloudless(ctx, append(slices.Clone(args), "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s: cloudless %s: read JSON: %w: %.200s", d.Name, strings.Join(args, " "), err, out)
	}
	if strings.Contains(out, `"stale_since"`) {
		return fmt.Errorf("%s: cloudless %s: no anchor answered, it is what the node knew last", d.Name, strings.Join(args, " "))
	}
	return nil
}

// Apply applies a manifest.
func (d *Device) Apply(ctx context.Context, manifest string, flags ...string) error {
	if d.lab.Binary == "" {
		return fmt.Errorf("apply on %s: the lab was built without a cloudless binary", d.Name)
	}
	var stderr bytes.Buffer
	err := d.Run(ctx, Cmd{
		Args:  append([]string{d.lab.Binary, "apply", "-f", "-"}, flags...),
		Stdin: strings.NewReader(manifest), Stderr: &stderr,
	})
	var exit *ExitError
	if errors.As(err, &exit) {
		exit.Stderr = stderr.String()
	}
	return err
}

// Nodes asks the device for the nodes of the cluster.
func (d *Device) Nodes(ctx context.Context) ([]Node, error) {
	var list []Node
	return list, d.CloudlessJSON(ctx, &list, "node", "list")
}

// Peers asks the device how it reaches the others.
func (d *Device) Peers(ctx context.Context) ([]Peer, error) {
	var list []Peer
	return list, d.CloudlessJSON(ctx, &list, "network", "peers")
}

// Workload asks the device for a workload.
func (d *Device) Workload(ctx context.Context, name string) (*Workload, error) {
	w := &Workload{}
	return w, d.CloudlessJSON(ctx, w, "workload", "show", name)
}

// Await polls until cond returns nil. When the time is up the error says what
// was awaited and what was wrong with it last.
func Await(ctx context.Context, timeout time.Duration, what string, cond func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	for {
		err := cond(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // not the echo of the timeout
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s: %w", timeout, what, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// AwaitReady waits until the given nodes are ready in the eyes of d.
func (d *Device) AwaitReady(ctx context.Context, timeout time.Duration, names ...string) error {
	return Await(ctx, timeout, strings.Join(names, ", ")+" to be ready", func(ctx context.Context) error {
		nodes, err := d.Nodes(ctx)
		if err != nil {
			return err
		}
		state := map[string]string{}
		for _, n := range nodes {
			state[n.Name] = n.State
		}
		for _, name := range names {
			if s := state[name]; s != "ready" {
				return fmt.Errorf("%s sees %s as %q", d.Name, name, s)
			}
		}
		return nil
	})
}

// AwaitReplicas waits until n replicas of a workload's last revision are ready
// and none of an older one, nor any on the nodes named in without.
func (d *Device) AwaitReplicas(ctx context.Context, timeout time.Duration, name string, n int, without ...string) (*Workload, error) {
	var found *Workload
	err := Await(ctx, timeout, fmt.Sprintf("%d replicas of %s", n, name), func(ctx context.Context) error {
		w, err := d.Workload(ctx, name)
		if err != nil {
			return err
		}
		for _, place := range w.Places() {
			if slices.Contains(without, place) {
				return fmt.Errorf("a replica counts as ready on %s", place)
			}
		}
		for _, r := range w.Ready() {
			if r.Revision != w.Revision {
				return fmt.Errorf("%s on %s is still of revision %d", r.ID, r.NodeName, r.Revision)
			}
		}
		if got := len(w.Ready()); got != n {
			return fmt.Errorf("%d are ready: %s", got, w.describe())
		}
		found = w
		return nil
	})
	return found, err
}

func (w *Workload) describe() string {
	parts := []string{w.State}
	if w.Message != "" {
		parts = append(parts, w.Message)
	}
	for _, r := range w.List {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s on %s is %s %s", r.ID, r.NodeName, r.State, r.Reason)))
	}
	return strings.Join(parts, "; ")
}

// startUp bounds how long a cluster may take to come up in Found.
const startUp = 2 * time.Minute

// Found founds a cluster on the anchor, a public device, and lets the others
// join it, all at once. It returns when every node is ready.
func (l *Lab) Found(ctx context.Context, anchor string, joiners ...string) error {
	a := l.Device(anchor)
	if err := a.Start(ctx, "--init", "--public", "yes"); err != nil {
		return err
	}
	if err := a.AwaitReady(ctx, startUp, anchor); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, name := range joiners {
		g.Go(func() error { return l.Join(gctx, a, name) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return a.AwaitReady(ctx, startUp, append([]string{anchor}, joiners...)...)
}

// Join has a device made a token for and join with it. It does not wait until
// the device is ready.
func (l *Lab) Join(ctx context.Context, by *Device, name string) error {
	var t Token
	if err := by.CloudlessJSON(ctx, &t, "token", "create"); err != nil {
		return err
	}
	return l.Device(name).Start(ctx, "--join", t.Token)
}
