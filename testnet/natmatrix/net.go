//go:build linux

package natmatrix

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
	"github.com/cloudless-project/cloudless/testnet"
)

const (
	gossipEvery = 100 * time.Millisecond // how often a change is told to all
	pollEvery   = 20 * time.Millisecond
)

// Net is a lab whose devices run meshes.
type Net struct {
	Lab       *testnet.Lab
	authority *identity.Authority
	ctx       context.Context // of the meshes
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu    sync.Mutex
	nodes map[string]*node
	hush  bool // nobody is told anything any more
}

// node is a mesh that runs.
type node struct {
	id     api.NodeID
	stdin  *io.PipeWriter
	report Report
	anchor bool
	told   string        // the contacts it was told last
	ended  chan struct{} // closed when the process has ended
}

// Up builds a lab for meshes. Close ends it.
func Up(ctx context.Context, t testnet.Topology) (*Net, error) {
	a, err := identity.NewAuthority("lab", time.Now())
	if err != nil {
		return nil, err
	}
	lab, err := testnet.Up(ctx, t, testnet.Options{})
	if err != nil {
		return nil, err
	}
	n := &Net{Lab: lab, authority: a, nodes: make(map[string]*node)}
	n.ctx, n.cancel = context.WithCancel(ctx)
	n.wg.Go(n.gossip)
	return n, nil
}

// Close ends the meshes and the lab.
func (n *Net) Close() error {
	n.mu.Lock()
	var names []string
	for name := range n.nodes {
		names = append(names, name)
	}
	n.mu.Unlock()
	for _, name := range names {
		n.Stop(name)
	}
	n.cancel()
	n.wg.Wait()
	return n.Lab.Close()
}

// Start runs a mesh with a new key on a device and returns once it has spoken.
// public is the operator's switch: yes, no or auto; one that says yes is the
// anchor of the others.
func (n *Net) Start(ctx context.Context, name, public string) error {
	d, ok := n.Lab.Lookup(name)
	if !ok {
		return fmt.Errorf("start mesh: no device %q", name)
	}
	first, id, err := n.newMember(name, public)
	if err != nil {
		return fmt.Errorf("start mesh on %s: %w", name, err)
	}
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	x := &node{id: id, stdin: stdin, anchor: public == p2p.PublicYes, ended: make(chan struct{})}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var failed error
	n.wg.Go(func() {
		defer close(x.ended)
		failed = d.Run(n.ctx, testnet.Cmd{Args: []string{self, programName}, Stdin: in, Stdout: out, Stderr: os.Stderr})
		_ = in.Close()
		_ = out.CloseWithError(io.EOF)
	})
	n.wg.Go(func() { n.listen(x, stdout) })
	if _, err := stdin.Write(first); err != nil {
		<-x.ended
		return errors.Join(fmt.Errorf("start mesh on %s: %w", name, err), failed)
	}
	n.mu.Lock()
	n.nodes[name] = x
	n.mu.Unlock()
	return n.Await(ctx, name+" to speak", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return x.report.Contact.ID != ""
	})
}

// newMember makes a key and a certificate, and the program's first line.
func (n *Net) newMember(name, public string) ([]byte, api.NodeID, error) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, "", err
	}
	csr, err := identity.NewCSR(key, name)
	if err != nil {
		return nil, "", err
	}
	cert, _, err := n.authority.Issue(csr, []api.Role{api.RoleNode}, "", time.Now(), time.Hour)
	if err != nil {
		return nil, "", err
	}
	d := n.Lab.Device(name)
	line, err := json.Marshal(setup{
		Key: key, CA: n.authority.Certificate().Raw, Cert: cert, Cluster: n.authority.ClusterID(), Public: public,
		MapPort: n.Lab.Site(d.Site).Mapping != "", Verbose: os.Getenv("NATMATRIX_LOG") == name,
	})
	return append(line, '\n'), identity.NodeID(pub), err
}

// listen takes what a program prints.
func (n *Net) listen(x *node, out *io.PipeReader) {
	dec := json.NewDecoder(out)
	for {
		var r Report
		if err := dec.Decode(&r); err != nil {
			_ = out.CloseWithError(err)
			return
		}
		r.Contact.Anchor = x.anchor
		n.mu.Lock()
		x.report = r
		n.mu.Unlock()
	}
}

// Stop ends a mesh; it says goodbye.
func (n *Net) Stop(name string) {
	n.mu.Lock()
	x := n.nodes[name]
	delete(n.nodes, name)
	n.mu.Unlock()
	if x != nil {
		_ = x.stdin.Close()
		<-x.ended
	}
}

// gossip tells every mesh the contacts of all whenever one has changed.
func (n *Net) gossip() {
	tick := time.NewTicker(gossipEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		n.mu.Lock()
		if n.hush {
			n.mu.Unlock()
			return
		}
		var all []p2p.Contact
		var behind []*node
		for _, x := range n.nodes {
			if x.report.Contact.ID != "" {
				all = append(all, x.report.Contact)
			}
		}
		slices.SortFunc(all, func(a, b p2p.Contact) int { return compare(a.ID, b.ID) })
		line, _ := json.Marshal(order{Contacts: all})
		for _, x := range n.nodes {
			if x.told != string(line) && len(all) > 0 {
				x.told = string(line)
				behind = append(behind, x)
			}
		}
		n.mu.Unlock()
		for _, x := range behind {
			_, _ = x.stdin.Write(append(line, '\n')) // one that has ended needs no news
		}
	}
}

// Hush ends the news of contacts, as when every anchor is off.
func (n *Net) Hush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hush = true
}

func compare(a, b api.NodeID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (n *Net) order(name string, o order) error {
	n.mu.Lock()
	x := n.nodes[name]
	n.mu.Unlock()
	if x == nil {
		return fmt.Errorf("%s runs no mesh", name)
	}
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = x.stdin.Write(append(line, '\n'))
	return err
}

// Report returns the last report of a device.
func (n *Net) Report(name string) Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	if x := n.nodes[name]; x != nil {
		return x.report
	}
	return Report{}
}

// Sees returns what one device reports of another.
func (n *Net) Sees(from, to string) PeerReport {
	return n.Report(from).Peers[n.Report(to).Contact.ID]
}

// Await polls until cond holds. What it waits for appears in the error.
func (n *Net) Await(ctx context.Context, what string, cond func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// Echo sends a megabyte from one device to another and back.
func (n *Net) Echo(ctx context.Context, from, to string) (time.Duration, error) {
	id := n.Report(to).Contact.ID
	if err := n.order(from, order{Echo: id}); err != nil {
		return 0, err
	}
	if err := n.Await(ctx, fmt.Sprintf("a megabyte from %s to %s", from, to), func() bool { return n.Sees(from, to).Echo != "" }); err != nil {
		return 0, err
	}
	r := n.Sees(from, to)
	if r.Echo != "ok" {
		return 0, fmt.Errorf("a megabyte from %s to %s: %s", from, to, r.Echo)
	}
	return r.EchoIn, nil
}
