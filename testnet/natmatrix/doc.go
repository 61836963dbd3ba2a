// Package natmatrix measures how the mesh finds its way through real NATs.
//
// Every device of a lab (package testnet) runs a mesh of its own (package p2p)
// with a certificate of one authority (security/identity), and nothing else of
// a node. A [Net] is the controller: it starts and stops the meshes, tells all
// of them of each other as the view of a cluster does, and reads what they
// report. On top of it:
//
//   - [Pairs] is the matrix: two homes of given kinds, the path that must come
//     of them, and how long it took to the first byte and to the best path.
//   - [Scenarios] are stories: two devices of a LAN, a house full of them, a new
//     address while data flows, a dead path between two homes.
//
// What it needs: root, and what the lab needs. Programs that use it call
// [RunProgram] first thing in main, after testnet.RunInit.
package natmatrix
