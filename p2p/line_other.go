//go:build !linux

package p2p

import "net"

// noticeSilence leaves it to keepalives and to the end of the admission.
func noticeSilence(net.Conn) {}
