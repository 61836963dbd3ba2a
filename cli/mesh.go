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
	// tryPeer is how long one peer may take to answer.
	tryPeer = 8 * time.Second
	// nextPeer is how long one is waited for before the next is tried as well.
	nextPeer = 1500 * time.Millisecond
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
	return c, func() { a.learnIfDue(c, access); _ = c.Close(); stop() }, nil
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
	c.addAll(a.Peers, true)
	c.addAll(a.Others, false)
	if len(c.wanted) == 0 {
		return candidates{}, api.Errorf(api.KindInvalid, "the context %s names no peer that could be asked", a.Name).
			WithHint("name one with --peer, or log in again")
	}
	return c, nil
}

// addAll adds peers by their addresses; relays are those through which the
// others are reached.
func (c *candidates) addAll(addresses []string, relays bool) {
	for _, address := range addresses {
		contact, err := p2p.ParseContact(address)
		if err != nil {
			continue // one bad line must not cost the others theirs
		}
		contact.Anchor, contact.Relay = relays, relays
		c.add(contact)
	}
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

// dialAny opens a stream to the first peer that answers. The next one is tried
// when one has failed, or does not answer soon.
func dialAny(ctx context.Context, mesh *p2p.Mesh, peers []api.NodeID) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed)
	errs := make([]error, len(peers))
	next := time.NewTimer(0)
	defer next.Stop()
	for started, running := 0, 0; started < len(peers) || running > 0; {
		select {
		case <-next.C:
			if started == len(peers) {
				continue
			}
			go dialOne(ctx, mesh, peers[started], started, results)
			started, running = started+1, running+1
			next.Reset(nextPeer)
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			errs[r.index], running = r.err, running-1
			next.Reset(0)
		case <-ctx.Done():
			errs = append(errs, context.Cause(ctx))
			started, running = len(peers), 0
		}
	}
	return nil, errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
}

// dialed is how one attempt ended.
type dialed struct {
	index int
	conn  net.Conn
	err   error
}

func dialOne(ctx context.Context, mesh *p2p.Mesh, peer api.NodeID, index int, results chan<- dialed) {
	within, cancel := context.WithTimeout(ctx, tryPeer)
	defer cancel()
	r := dialed{index: index}
	conn, err := mesh.Dial(within, peer, api.ProtoAPI)
	if r.err = err; err == nil {
		r.conn = conn
	}
	select {
	case results <- r:
	case <-ctx.Done(): // another one was faster
		if err == nil {
			_ = conn.Close()
		}
	}
}

// guest admits peers by the cluster's authority alone: it sees no revocations,
// and asks only peers that its owner chose.
type guest struct{ own credentials }

func (g guest) Certificate() []byte { return g.own.shown }

func (g guest) Verify(peer api.NodeID, certificate []byte) (api.Member, error) {
	return g.own.trust.Verify(certificate, time.Now(), identity.VerifyOptions{Peer: peer, Skew: identity.ClockSkew})
}

func (guest) Revoked(api.NodeID) bool { return false }

// renewIfDue replaces a certificate that is past the middle of its life. When
// that fails, the command goes on: the present certificate is still good.
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
