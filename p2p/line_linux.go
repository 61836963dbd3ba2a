package p2p

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// acknowledgements asks the kernel. Left alone it would try to reach a dead end for
// a quarter of an hour, and with TCP_USER_TIMEOUT it would give up a living one
// that reads nothing for as long.
func acknowledgements(c net.Conn) acks {
	s, ok := c.(syscall.Conn)
	if !ok {
		return acks{}
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return acks{}
	}
	var a acks
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		a.missing = info.Unacked > 0 || info.Probes > 0
		a.last = time.Duration(info.Last_ack_recv) * time.Millisecond
	})
	return a
}
