// Package place chooses a node for a replica, and says why.
//
// A Fleet holds the state of every node in flat arrays, built once from the
// authoritative state. A decision compiles a Request into rules, keeps the
// nodes that every rule allows (filter), keeps of those the ones where a
// failure would hurt least (tier), scores these exactly, without sampling, and
// reserves what the replica needs, so that the next decision sees it.
//
// The score of a node is
//
//	S = w_l·locality + w_r·reliability + w_c·cost + w_u·utilisation − w_n·network
//
// where every term lies between 0 and 1; scores.go says what each one means.
//
// Tiers come before scores. With strategy spread the tier is the number of the
// workload's replicas in the node's topology (a zone, say), so a spread never
// gives way to a cached image. With binpack it is by how many replicas the loss
// of the node would exceed what the workload can spare (replicas −
// minAvailable): packing puts small workloads together, not the replicas of one
// workload, as long as there is room elsewhere.
//
// The package is pure: the same Fleet and the same Request give the same
// Decision. A Fleet is not safe for concurrent use.
package place
