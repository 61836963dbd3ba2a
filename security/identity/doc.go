// Package identity says who is who: device keys and the PeerIDs they hash to,
// the cluster's certificate authority, membership certificates and join tokens.
//
// A device is its Ed25519 key; its api.NodeID is the libp2p PeerID of that
// key. A member is a device for whose key the cluster's authority has signed a
// certificate. The certificate carries
//
//   - the public key, from which the PeerID follows;
//   - one URI name, spiffe://<cluster>/node/<peer-id> for a daemon or
//     spiffe://<cluster>/operator/<name> for a person;
//   - the roles, as the subject's organizational units: every tool that prints
//     a certificate shows them, and no private object identifier is needed;
//   - a life of at most 24 hours.
//
// The name of a cluster that machines use (the cluster ID) is a hash of the
// authority's founding public key, so whoever knows the ID can check the
// authority. Its key can be replaced: each generation's certificate is signed by
// the generation before it, and a membership certificate is followed by those of
// its issuers back to the second, in the order of TLS. A Trust says which
// generations are known and which of them count.
//
// Nothing here reads the clock: the time is an argument. Files live below an
// os.Root, mode 0600. The package does not know libp2p; a test compares the
// PeerIDs with its own.
package identity
