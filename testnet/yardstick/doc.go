// Package yardstick measures hashicorp/memberlist itself, with its LAN defaults,
// in virtual time and over the links of testnet/sim: how long it takes until 99 %
// of the members know of a join, a leave and a death. It is a module of its own,
// so that the library is no dependency of Cloudless.
//
// It is a benchmark in the form of a test, because testing/synctest gives its
// virtual time to tests alone: `make yardstick` runs it.
package yardstick
