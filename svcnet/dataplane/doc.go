// Package dataplane programs the operating system for the service network:
// the bridge of the containers, the namespace that holds the virtual IPs, the
// namespaces of the containers, routes, and the firewall table `inet cloudless`.
//
// A Plane is declarative: Set compares what is there with what is wanted and
// changes the difference, so it can be called at any time and repairs what
// somebody else flushed. Nothing is kept in files: after a crash the truth is
// what the kernel shows.
//
//	host                        VIP namespace               container
//	┌──────────────────────┐    ┌─────────────────────┐     ┌────────────────────┐
//	│ cloudless0  .1/24 ───┼─┬──┤ eth0 .2/24          │  ┌──┤ eth0 .n/24         │
//	│ route VIPs via .2    │ │  │ local VIPs dev lo   │  │  │ default via .1     │
//	│ masquerade, filter   │ │  │ sockets of svcnet   │  │  │ VIPs via .2        │
//	└──────────────────────┘ │  └─────────────────────┘  │  └────────────────────┘
//	                         └───────────────────────────┘
//
// Containers reach VIPs and DNS over the bridge alone, so neither the host's
// own listeners nor its firewall stand in between. Toward the host itself they
// reach nothing (but ping); toward the world they go out masqueraded; nothing
// from outside reaches a container or a VIP.
//
// Everything works the same in a network namespace as on a host: the Plane
// programs the namespace that the process runs in. It uses no external program.
package dataplane
