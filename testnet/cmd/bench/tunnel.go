//go:build linux

package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cloudless-project/cloudless/testnet"
)

var wireguard = flag.String("wireguard", "build/tools/wireguard", "the WireGuard in user space to compare with")

const (
	tunnelLink = "clwg0"
	tunnelPort = 51820
)

// tunnelEnd is one end of a WireGuard tunnel.
type tunnelEnd struct {
	device *testnet.Device
	addr   string // within the tunnel
	key    *ecdh.PrivateKey
}

// tunnelIperf measures through a tunnel that it builds and takes down again.
func tunnelIperf(ctx context.Context, server, client *testnet.Device) (gbit float64, err error) {
	binary, err := filepath.Abs(*wireguard)
	if err != nil {
		return 0, err
	}
	ends := []*tunnelEnd{{device: server, addr: "10.99.0.1"}, {device: client, addr: "10.99.0.2"}}
	for _, e := range ends {
		if e.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return 0, err
		}
	}
	up, down := context.WithCancel(ctx)
	var running sync.WaitGroup
	failed := make(chan error, len(ends))
	defer running.Wait()
	defer down()
	for i, e := range ends {
		other := ends[1-i]
		running.Go(func() { failed <- e.run(up, binary, other) })
	}
	for _, e := range ends {
		if err := e.configure(ctx); err != nil {
			down()
			return 0, errors.Join(err, <-failed)
		}
	}
	return plainIperf(ctx, server, client, ends[0].addr)
}

// run keeps the end up until ctx ends.
func (e *tunnelEnd) run(ctx context.Context, binary string, other *tunnelEnd) error {
	config := fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s:%d\nallowed_ip=%s/32\n\n",
		hex.EncodeToString(e.key.Bytes()), tunnelPort, hex.EncodeToString(other.key.PublicKey().Bytes()),
		other.device.Addr, tunnelPort, other.addr)
	err := e.device.Run(ctx, testnet.Cmd{Args: []string{binary, tunnelLink}, Stdin: strings.NewReader(config)})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// configure gives the link its address once it is there.
func (e *tunnelEnd) configure(ctx context.Context) error {
	return testnet.Await(ctx, patient, "the tunnel on "+e.device.Name, func(ctx context.Context) error {
		_, err := e.device.Output(ctx, "ip", "address", "replace", e.addr+"/24", "dev", tunnelLink)
		if err == nil {
			_, err = e.device.Output(ctx, "ip", "link", "set", tunnelLink, "up")
		}
		return err
	})
}
