//go:build !unix

package p2p

import "net"

// awaitBytes does not wait: only the command line runs here, and that does not
// listen.
func awaitBytes(net.Conn, int) error { return nil }
