package cli

import (
	"context"
	"os"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

// connect returns a client of the node that the flags, the environment or the
// current context mean, and what ends it. In this order: a peer or a context
// that was named; a socket that was named; the socket of a node on this
// machine; the current context.
func (a *app) connect(ctx context.Context) (*client.Client, func(), error) {
	access, all, err := a.access()
	if err != nil {
		return nil, nil, err
	}
	if access != nil {
		return a.connectMesh(ctx, all, access)
	}
	c, err := client.Dial(client.Options{Socket: a.socket()})
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = c.Close() }, nil
}

// access returns the context to use, nil for the local socket.
func (a *app) access() (*clusterAccess, *contexts, error) {
	name := a.flags.context
	if name == "" && a.flags.socket == "" {
		name = os.Getenv(envContext)
	}
	if name == "" && a.flags.peer == "" && a.localNode() {
		return nil, nil, nil
	}
	all, err := loadContexts()
	if err != nil {
		return nil, nil, err
	}
	if name == "" {
		name = all.Current
	}
	if name == "" {
		if a.flags.peer != "" {
			return nil, nil, api.Invalid("--peer", "there is no context whose identity could be used").
				WithHint("make one with \"cloudless login\"")
		}
		return nil, nil, nil
	}
	access, err := all.find(name)
	return access, all, err
}

// localNode reports whether a socket was named, or one is where a node on this
// machine would have it.
func (a *app) localNode() bool {
	if a.flags.socket != "" || os.Getenv(envSocket) != "" {
		return true
	}
	_, err := os.Stat(client.DefaultSocket)
	return err == nil
}
