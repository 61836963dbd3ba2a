package node

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"golang.org/x/net/netutil"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// serverTLS returns the TLS of a plain TCP port: this node's membership
// certificate, and callers that show one of their own.
func serverTLS(adm *admission, key ed25519.PrivateKey) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, // checked by VerifyConnection, which knows our names
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			chain, err := identity.TLSChain(adm.Certificate(), adm.ca)
			return &tls.Certificate{Certificate: chain, PrivateKey: key}, err
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := memberOf(adm, cs)
			return err
		},
		NextProtos: []string{"h2", "http/1.1"},
	}
}

// memberOf returns who is at the other end of a TLS connection.
func memberOf(adm *admission, cs tls.ConnectionState) (api.Member, error) {
	if len(cs.PeerCertificates) == 0 {
		return api.Member{}, errors.New("no certificate was shown")
	}
	leaf := cs.PeerCertificates[0]
	pub, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return api.Member{}, errors.New("the certificate is not for an Ed25519 key")
	}
	return adm.Verify(identity.NodeID(pub), identity.FromTLS(cs.PeerCertificates))
}

// maxTCP bounds the connections to a plain TCP port, those of strangers until
// their handshake fails included: they must not use up the daemon's files.
const maxTCP = 512

// listenTCP opens a plain TCP port; flag is what a person gave the address with.
func listenTCP(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, api.Invalid(flag, "%v", err)
	}
	return netutil.LimitListener(l, maxTCP), nil
}

// tlsListener accepts connections whose identity is proven by TLS; the API
// server completes the handshake, off the accepting goroutine.
type tlsListener struct {
	net.Listener
	adm  *admission
	conf *tls.Config
}

func listenTLS(address string, adm *admission, key ed25519.PrivateKey) (*tlsListener, error) {
	l, err := listenTCP("--api-listen", address)
	if err != nil {
		return nil, err
	}
	return &tlsListener{Listener: l, adm: adm, conf: serverTLS(adm, key)}, nil
}

// Accept implements net.Listener.
func (l *tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tlsConn{Conn: tls.Server(c, l.conf), adm: l.adm}, nil
}

// tlsConn is a control.Prover.
type tlsConn struct {
	*tls.Conn
	adm *admission

	mu      sync.Mutex
	member  api.Member
	release func() // nil until proven
}

// Prove completes the handshake.
func (c *tlsConn) Prove(ctx context.Context) error {
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	m, err := memberOf(c.adm, c.ConnectionState())
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.member, c.release = m, c.adm.revoked.hold(m.ID, c.NetConn())
	return nil
}

// Close implements net.Conn.
func (c *tlsConn) Close() error {
	c.mu.Lock()
	if c.release != nil {
		c.release()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// Member returns who was proven.
func (c *tlsConn) Member() api.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.member
}
