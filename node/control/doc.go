// Package control serves the gRPC API: on the local unix socket, to admitted
// peers over the mesh, and to the node itself.
//
// Any node answers any call. What the answering node knows itself it answers
// itself; everything that reads or changes the authoritative state is carried
// on to the leader, once, in the name of the caller. Every method has a row in
// the table of auth.go, which says who may call it and where it is answered; a
// server with a method that has no row does not start.
package control
