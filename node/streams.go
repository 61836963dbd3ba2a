package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
)

// raftStreams carries Raft over the mesh, between anchors of the same epoch:
// each stream begins with the epoch of the side that opened it. The logs of two
// epochs must never meet, because the same index means different things.
type raftStreams struct {
	net.Listener
	mesh   *p2p.Mesh
	epoch  uint64
	admits func(api.Member) bool
}

// Dial implements raftmeta.Streams.
func (s raftStreams) Dial(ctx context.Context, to api.NodeID) (net.Conn, error) {
	conn, err := s.mesh.Dial(ctx, to, api.ProtoRaft)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, s.epoch)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// Accept implements raftmeta.Streams.
func (s raftStreams) Accept() (net.Conn, error) {
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, ok := conn.(p2p.Conn); !ok || !s.admits(c.Member()) {
			conn.Close()
			continue
		}
		return &epochConn{Conn: conn, epoch: s.epoch}, nil
	}
}

// epochConn is an accepted stream. Its first read makes sure of the epoch.
type epochConn struct {
	net.Conn
	epoch uint64
	once  sync.Once
	err   error
}

func (c *epochConn) Read(b []byte) (int, error) {
	c.once.Do(func() {
		var raw [8]byte
		if _, c.err = io.ReadFull(c.Conn, raw[:]); c.err != nil {
			return
		}
		if theirs := binary.BigEndian.Uint64(raw[:]); theirs != c.epoch {
			c.err = fmt.Errorf("an anchor of epoch %d calls, this one is of epoch %d", theirs, c.epoch)
			c.Conn.Close()
		}
	})
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}
