// Package blockstore moves the blobs of images between nodes by bitswap.
//
// A blob travels as leaves of 1 MiB (api.BlobLeafSize), each a raw block with
// a CID of its own, so that every piece is verified on its own and several
// nodes can serve one blob. The list of leaves is part of the image's record
// in the authoritative state, so no root block and no DHT are needed.
//
// # What it promises
//
//   - Nothing is stored twice: a leaf is served by reading its range of the blob
//     in the container runtime's content store, and what Fetch receives goes in
//     order to the caller's writer, past a bounded window in memory.
//   - A leaf is served only after its hash was checked, and written by Fetch
//     only after its hash was checked. A local blob that fails is reported
//     through Config.Corrupt and not served any more.
//   - A node that sends something else than it was asked for is not asked again
//     for a while, and the fetch goes on with the others.
//   - Only nodes that Config.Allowed accepts are served, heard or asked.
//
// # What the caller must do
//
//   - Call Provide for every image at start and after each import or fetch, and
//     Withdraw before a blob is deleted: the index lives in memory alone.
//   - Write what Fetch yields through something that verifies the blob's digest
//     and size as a whole before the blob can be seen, and throw it away when
//     Fetch fails.
//
// Bitswap knows peers; this package knows sources. The bitswap client hears of
// a peer only while a fetch uses it: wants are never broadcast over the mesh,
// the nearest holders are asked first, and others only when those are too few,
// silent or gone.
package blockstore
