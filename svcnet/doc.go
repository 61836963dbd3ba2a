// Package svcnet is the service network of one node: it gives every service a
// virtual IP and a DNS name on this node, carries connections to the replicas
// behind it wherever they run, and plugs containers into all of that.
//
// # What it promises
//
// A connection to a service's VIP:port is accepted on this node, by this
// process. The endpoint is chosen per connection: those that are ready, then
// the nearest path class (same node, LAN, direct, relayed), then the lowest
// round-trip time, then, among equals, two are drawn by weight and the one
// with fewer open connections wins. Until the first byte is forwarded a dead or
// refusing endpoint costs the client nothing but time: another one is tried, and
// one that failed is avoided for a short while. A service that has no ready
// endpoint right now holds new connections for a few seconds instead of refusing
// them.
//
// A connection to another node begins as a stream among others. When it turns out
// to carry a lot it moves onto a connection of its own, where the nodes can open
// one (move.go). A connection that breaks never looks like one that has ended.
//
// Everything is answered from the last Table that was Set. No anchor is ever
// asked, so names, addresses and connections go on working without one.
//
// # How VIPs exist
//
// All addresses of the VIP range are local addresses (AnyIP) of one small
// network namespace that belongs to this process and hangs on the container
// bridge. There is no kernel state per service: a listener on VIP:port is an
// ordinary socket inside that namespace. The namespace is there because sockets on the host
// would collide with the host's own: a VIP:80 listener makes the host's
// web server fail to bind 0.0.0.0:80, a host that has it bound already makes
// the listener fail, and every wildcard listener of the host (sshd, say) would
// answer on every VIP.
//
// # What it needs
//
// The caller supplies the way to other nodes (FlowDialer, and ServeFlow for
// what comes in) and what it knows of paths (Config.Paths). Peers on flows are
// authenticated before they come here; what they write is still treated as
// hostile: the header is bounded, only replicas of this node are reachable, and
// only on the ports that their service declares.
//
// # What it never does
//
// It never touches firewall tables, links or routes that it did not make, and
// it never writes the host's resolver configuration files.
package svcnet
