// Package supervise finds the containerd of a node, or runs one.
//
// In this order: the address that was given; a containerd that this node ran
// before (its data holds our containers, and after a crash of the daemon it may
// still be running, which is then adopted rather than started twice); one that
// answers at the usual address; a new one of our own.
//
// An own containerd runs in a session of its own and writes to a file, so that
// it outlives a killed daemon. It is started again, with a growing pause, when
// it dies, and is told to stop when Run ends. Containers do not notice either:
// they belong to their shims.
package supervise
