// Package node is the daemon: it builds every part of Cloudless, adapts the
// parts to each other and runs them in one errgroup until it is told to stop.
//
// A node always has a mesh, a control API, and a sync client that keeps it in
// step with the anchors. A worker also has a container runtime, an image
// exchange, a service network and an agent that makes assignments real. An
// anchor also has a Raft log, and, while it leads, the loops that decide.
//
// What it keeps on disk, below the data directory:
//
//	node.key            the device key (0600); its hash is the node's ID
//	membership.json     cluster, CA certificate, own certificate, known anchors
//	authority/          the sealed CA key, on anchors (0600)
//	raft/               log and snapshots, on anchors
//	raft.damaged/       a log that could not be trusted, on anchors
//	snapshots/          sealed snapshots that this node keeps for the cluster
//	view.json           the last cluster view; enough to work without anchors
//	anchor-seen.json    when an anchor answered last; tells an island from the rest
//	records.json        where the members say they are, signed by them
//	incarnation.json    the number of the last daemon that ran here
//	images/             index of the images whose blobs this node can give
//	containerd/         the supervised runtime, when the host has none
//	logs/               output of the containers
//
// Parts are built in the order in which they stand on each other and end in the
// opposite one (lifecycle): the API drains and the agent stops while the mesh
// still carries what they say, and a start that fails closes what it opened.
package node
