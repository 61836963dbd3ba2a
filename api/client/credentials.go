package client

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/cloudless-project/cloudless/api"
)

// authenticatedBelow are transport credentials that add nothing, because the
// connection below is secure already. They refuse a connection of which that
// is not known: plain TCP can never slip through.
type authenticatedBelow struct{}

var _ credentials.TransportCredentials = authenticatedBelow{}

// ClientHandshake accepts a unix socket or an admitted stream of the mesh.
func (authenticatedBelow) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	switch conn.(type) {
	case *net.UnixConn, interface{ Member() api.Member }:
		info := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
		return conn, authInfo{info}, nil
	}
	return nil, nil, fmt.Errorf("refusing to send API calls over %T: it is neither a unix socket nor an admitted stream of the mesh", conn)
}

// ServerHandshake refuses: these are credentials of a client.
func (authenticatedBelow) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the credentials of a client cannot serve")
}

func (authenticatedBelow) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "authenticated-below"}
}

func (a authenticatedBelow) Clone() credentials.TransportCredentials { return a }

func (authenticatedBelow) OverrideServerName(string) error { return nil }

type authInfo struct{ credentials.CommonAuthInfo }

func (authInfo) AuthType() string { return "authenticated-below" }
