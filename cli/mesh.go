package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
)

const (
	// tryPeer is how long one peer may take to answer before the next is tried.
	tryPeer = 8 * time.Second
)

// connectMesh joins the mesh with a context's identity, as a guest that only
// dials, and returns a client of one of its peers.
func (a *app) connectMesh(ctx context.Context, all *contexts, access *clusterAccess) (*client.Client, func(), error) {
	own, err := access.credentials()
	if err != nil {
		return nil, nil, err
	}
	if now := a.now(); now.After(own.certificate.NotAfter) {
		return nil, nil, api.Errorf(api.KindDenied, "your certificate for %s ended %s ago", access.ClusterName, age(now, own.certificate.NotAfter)).
			WithHint("make a token with \"cloudless token create --role operator\" on a node, then run \"cloudless login\"")
	}
	peers, err := access.contacts(a.flags.peer)
	if err != nil {
		return nil, nil, err
	}
	mesh, stop, err := startMesh(ctx, own, access.Cluster, peers.known)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.Dial(client.Options{
		Peer:   or(a.flags.peer, "of "+access.ClusterName),
		Dialer: func(ctx context.Context) (net.Conn, error) { return dialAny(ctx, mesh, peers.wanted) },
	})
	if err != nil {
		stop()
		return nil, nil, err
	}
	a.renewIfDue(ctx, c, all, access, own)
	return c, func() { _ = c.Close(); stop() }, nil
}

// candidates are the peers that one command may talk to.
type candidates struct {
	known  []p2p.Contact // whose addresses are known; relays among them
	wanted []api.NodeID  // any of them will do, the first is best
}

// contacts returns the peers of the context, or the one that was named: whoever
// names one wants an answer from there and from nowhere else.
func (a *clusterAccess) contacts(peer string) (candidates, error) {
	var c candidates
	if peer != "" {
		contact, err := p2p.ParseContact(peer)
		if err != nil {
			return candidates{}, api.Invalid("--peer", "%q is not the address of a peer", peer).
				WithHint("write it like /ip4/192.0.2.1/udp/4717/quic-v1/p2p/12D3KooW…")
		}
		c.add(contact)
		return c, nil
	}
	for _, address := range a.Peers {
		contact, err := p2p.ParseContact(address)
		if err != nil {
			continue // one bad line must not cost the others theirs
		}
		contact.Anchor, contact.Relay = true, true
		c.add(contact)
	}
	if len(c.wanted) == 0 {
		return candidates{}, api.Errorf(api.KindInvalid, "the context %s names no peer that could be asked", a.Name).
			WithHint("name one with --peer, or log in again")
	}
	return c, nil
}

// add merges the addresses of one peer.
func (c *candidates) add(contact p2p.Contact) {
	i := slices.IndexFunc(c.known, func(k p2p.Contact) bool { return k.ID == contact.ID })
	if i < 0 {
		c.known = append(c.known, contact)
		c.wanted = append(c.wanted, contact.ID)
		return
	}
	c.known[i].Addresses = append(c.known[i].Addresses, contact.Addresses...)
}

// startMesh runs a light mesh until stop is called.
func startMesh(ctx context.Context, own credentials, cluster string, known []p2p.Contact) (*p2p.Mesh, func(), error) {
	mesh, err := p2p.New(p2p.Config{
		Key:       own.key,
		Admission: guest{own},
		Cluster:   cluster,
		Contacts:  known,
		Client:    true,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("join the mesh: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = mesh.Run(ctx) // what goes wrong shows when a peer is dialled
	}()
	return mesh, func() { cancel(); <-ended }, nil
}

// dialAny opens a stream to the first peer that answers.
func dialAny(ctx context.Context, mesh *p2p.Mesh, peers []api.NodeID) (net.Conn, error) {
	var first error
	for _, peer := range peers {
		conn, err := dialOne(ctx, mesh, peer)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

func dialOne(ctx context.Context, mesh *p2p.Mesh, peer api.NodeID) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tryPeer)
	defer cancel()
	return mesh.Dial(ctx, peer, api.ProtoAPI)
}

// guest admits peers by the cluster's authority alone: it sees no revocations,
// and asks only peers that its owner chose.
type guest struct{ own credentials }

func (g guest) Certificate() []byte { return g.own.shown }

func (g guest) Verify(peer api.NodeID, certificate []byte) (api.Member, error) {
	return g.own.trust.Verify(certificate, time.Now(), identity.VerifyOptions{Peer: peer, Skew: identity.ClockSkew})
}

func (guest) Revoked(api.NodeID) bool { return false }

// renewIfDue replaces a certificate that is past the middle of its life, and
// the addresses of the anchors with those of today. When that fails, the
// command goes on: the present certificate is still good.
func (a *app) renewIfDue(ctx context.Context, c *client.Client, all *contexts, access *clusterAccess, own credentials) {
	now := a.now()
	if now.Before(identity.RenewAt(own.certificate.NotBefore, own.certificate.NotAfter, 0)) {
		return
	}
	if err := renew(ctx, c, all, access, own, now); err != nil {
		fmt.Fprintf(a.stderr, "warning: your certificate for %s ends in %s and could not be renewed: %s\n",
			access.ClusterName, short(own.certificate.NotAfter.Sub(now)), plain(err.Error()))
	}
}

func renew(ctx context.Context, c *client.Client, all *contexts, access *clusterAccess, own credentials, now time.Time) error {
	csr, err := identity.NewCSR(own.key, access.Operator)
	if err != nil {
		return err
	}
	der, err := c.RenewCertificate(ctx, csr)
	if err != nil {
		return err
	}
	if err := access.accept(der, own.trust, identity.NodeID(publicKey(own.key)), now); err != nil {
		return err
	}
	if nodes, err := c.Nodes(ctx); err == nil {
		access.learnPeers(nodes)
	}
	return all.save()
}

// accept checks a certificate and makes it the context's.
func (a *clusterAccess) accept(der []byte, trust identity.Trust, self api.NodeID, now time.Time) error {
	member, err := trust.Verify(der, now, identity.VerifyOptions{Peer: self, Skew: identity.ClockSkew})
	if err != nil {
		return err
	}
	text, err := certificatePEM(der)
	if err != nil {
		return err
	}
	a.Certificate, a.Operator, a.Roles = text, member.Operator, member.Roles
	return nil
}

// learnPeers replaces the peers with the anchors and relays of today, if any.
func (a *clusterAccess) learnPeers(nodes []api.NodeStatus) {
	var peers []string
	for _, n := range nodes {
		if !n.Voter && !n.Inventory.Public {
			continue
		}
		for _, address := range n.Inventory.Addresses {
			peers = append(peers, address+"/p2p/"+string(n.ID))
		}
	}
	if len(peers) > 0 {
		a.Peers = peers
	}
}
