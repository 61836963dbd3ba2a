// Package p2p is the mesh: it finds the members of the cluster, reaches them
// through NAT, proves who they are and carries streams and topics between them.
//
// What it promises:
//
//   - Every byte travels over TLS 1.3 (QUIC-v1 or TCP) between two Ed25519
//     keys, also when a third member relays it.
//   - A stranger may connect, and may speak libp2p's identify, AutoNAT and hole
//     punching, plus enrolment and hello; nothing else. Whoever is not admitted
//     a few seconds later is disconnected.
//   - A member is admitted by hello: both sides show their membership
//     certificates, and the PeerID in the certificate must be the one that TLS
//     proved. Admission belongs to the peer, not to a connection, and is
//     renewed in place when certificates are.
//   - Dial uses the best connection there is: LAN, then direct, then relayed,
//     TCP before QUIC for bulk. Streams do not move when a better connection
//     appears; new ones use it. When QUIC has no streams left, they share one.
//   - Lines are connections of their own for bulk transfers, between members
//     that are connected directly.
//
// What it needs: an Admission, which shows this device's certificate and
// judges those of others, and the contacts of the members (SetMembers), which
// carry their LAN addresses as well as the public ones. What members say of
// themselves (records) adds to that; Records and Config.Records carry it over a
// restart.
//
// What it never does: decide who is a member, keep state on disk, or trust an
// address.
//
// The files follow the jobs: host (the libp2p host and its limits), gate
// (which protocols a stranger reaches), admission and hello (who is in), enrol,
// contacts and keeper (who should be connected), relay, reserve, punch, portmap, upnp and
// natpmp (ways through NAT), tcp (from which port it dials), reach, outside and
// whoami (where this device is), pulse (which paths are dead), lan (mDNS),
// record, recordbook, recordpull and records (what members sign of their
// addresses), dht (the search among them), stream, bundle, dial and path
// (connections), line and line_listen (connections without streams), wire (how
// TLS uses TCP), topics, probe, metrics.
package p2p
