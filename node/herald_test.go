package node

import (
	"encoding/binary"
	"net"
	"testing"
)

func TestHeraldFollowsTheLatestEpoch(t *testing.T) {
	h := newHerald()
	h.heard("a", 0)
	_, changed := h.watch()
	h.heard("a", 0)
	select {
	case <-changed:
		t.Error("the same leader is news")
	default:
	}
	h.heard("b", 7)
	select {
	case <-changed:
	default:
		t.Error("another leader is no news")
	}
	h.heard("a", 0) // of the past
	h.heard("", 9)
	if leader, _ := h.watch(); leader != "b" {
		t.Errorf("%s leads, want b", leader)
	}
}

// Anchors of two epochs never read a byte of each other's logs.
func TestRaftStreamsKeepEpochsApart(t *testing.T) {
	for theirs, fits := range map[uint64]bool{7: true, 6: false, 8: false} {
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(append(binary.BigEndian.AppendUint64(nil, theirs), 'x'))
			far.Close()
		}()
		b := make([]byte, 8)
		n, err := (&epochConn{Conn: near, epoch: 7}).Read(b)
		if got := err == nil && n == 1 && b[0] == 'x'; got != fits {
			t.Errorf("epoch %d: read %q, %v", theirs, b[:n], err)
		}
		near.Close()
	}
}
