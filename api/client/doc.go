// Package client speaks the gRPC API with the nouns of package api. Errors are
// *api.Error, whatever layer they come from.
//
// A Client talks over exactly two kinds of connection, and refuses others: the
// unix socket of the local node, where the kernel vouches for both sides, and a
// stream of the mesh, which libp2p has encrypted and mutually authenticated and
// whose remote end was admitted to the cluster. There is no TLS on top of them.
//
// A Client connects when it is first used, may be used concurrently, and is
// closed by whoever dialled it.
package client
