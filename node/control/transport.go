package control

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/cloudless-project/cloudless/api"
)

// memberConn is a connection whose other end proved who it is before the API
// sees it: a stream of the mesh, or the node's own pipe.
type memberConn interface {
	net.Conn
	Member() api.Member
}

// Prover is a connection that needs a handshake before it knows its member.
type Prover interface {
	Prove(ctx context.Context) error
}

// authInfo is what the transport knows of the other end.
type authInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

// AuthType implements credentials.AuthInfo.
func (authInfo) AuthType() string { return "cloudless" }

const handshakeTimeout = 5 * time.Second

// provenCredentials take the identity from the connection itself. They encrypt
// nothing: a stream of the mesh lies inside libp2p's TLS 1.3, a TCP connection
// has done its own, and the others never leave the machine.
type provenCredentials struct{ self api.Member }

// ServerHandshake refuses every connection whose other end is not known.
func (c provenCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := authInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		caller:         Caller{UID: -1},
	}
	if p, ok := conn.(Prover); ok {
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		defer cancel()
		if err := p.Prove(ctx); err != nil {
			return nil, nil, err
		}
	}
	switch conn := conn.(type) {
	case memberConn:
		info.caller.Member = conn.Member()
	case *net.UnixConn:
		uid, err := peerUID(conn)
		if err != nil {
			return nil, nil, err
		}
		// Whoever may open the socket (mode 0660) operates the cluster.
		info.caller.UID = uid
		info.caller.Member = api.Member{ID: c.self.ID, Cluster: c.self.Cluster, Roles: []api.Role{api.RoleOperator}}
	default:
		return nil, nil, errors.New("the connection proves no identity")
	}
	return conn, info, nil
}

// ClientHandshake is used between nodes: the mesh proved the other end.
func (c provenCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	m, ok := conn.(memberConn)
	if !ok {
		return nil, nil, errors.New("the connection proves no identity")
	}
	return conn, authInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		caller:         Caller{Member: m.Member(), UID: -1},
	}, nil
}

// Info implements credentials.TransportCredentials.
func (provenCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "cloudless"}
}

// Clone implements credentials.TransportCredentials.
func (c provenCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (provenCredentials) OverrideServerName(string) error { return nil }

// pipeConn is one end of a pipe inside the daemon.
type pipeConn struct {
	net.Conn
	member api.Member
}

func (p pipeConn) Member() api.Member { return p.member }

// pipeListener hands the node's own connections to its server.
type pipeListener struct {
	self  api.Member
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func newPipeListener(self api.Member) *pipeListener {
	return &pipeListener{self: self, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- pipeConn{server, l.self}:
		return pipeConn{client, l.self}, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "self", Net: "pipe"} }
