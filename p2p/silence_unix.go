//go:build unix

package p2p

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// awaitBytes waits until n bytes can be read from a connection, and leaves them
// there. It ends when the connection does.
func awaitBytes(c net.Conn, n int) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf := make([]byte, n)
		got, _, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			return false
		case err != nil:
			failed = err
		case got == 0:
			failed = io.EOF
		case got < n:
			return false // the next bytes wake us
		}
		return true
	})
	return errors.Join(failed, err)
}
