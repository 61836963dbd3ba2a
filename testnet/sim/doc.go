// Package sim plays clusters of thousands of nodes in virtual time: how fast
// everybody knows of a join, a leave and a death, what that costs in bytes, who
// is declared dead that lives, and what happens when part of the network
// misbehaves. It needs no privileges and no network, and the same seed gives
// the same story.
//
// What is real: the failure detector (raftmeta/liveness) with its witnesses,
// the pace of heartbeats, the encodings of which the sizes are taken. What is
// modelled: links, nodes as senders of heartbeats and answerers of probes, the
// leader's commits and pushes. The yardstick is a model as well: SWIM with
// suspicion and Lifeguard's confirmations, with the LAN defaults that
// hashicorp/memberlist publishes.
//
// # Links
//
// Everything of ours travels on TCP or QUIC: a lost packet is late, not lost. It
// is sent again after 200 ms or two round trips, doubling. The yardstick's
// packets are UDP: lost is lost. A node has a latency to the backbone (median
// 12 ms one way, lognormal), devices of one house reach each other within 2 ms.
// Faults are per node: frozen (nothing in or out, also for its house), stalled
// (its path to the anchor alone), a share of packets lost in one direction.
package sim
