package p2p

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// noticeSilence has the kernel give a connection up that gets no
// acknowledgement. Left alone it would try for a quarter of an hour.
func noticeSilence(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(lineSilence.Milliseconds()))
	})
}
