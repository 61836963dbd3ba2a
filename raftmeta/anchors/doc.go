// Package anchors decides who holds the authoritative state of the cluster.
//
// It is pure: nodes, the members of the Raft group and the time come in, the
// next steps come out. The leader carries them out and asks again, so a step
// that fails, or a leader that dies between two of them, is repaired by the
// next round. Nothing has to be remembered from one round to the next.
//
// # The rules
//
//   - The number of votes rests at 1, 3 or 5. Two voters are worse than one, so
//     nobody gets a second vote before a third anchor is ready for one too.
//   - Without being asked the cluster grows to three anchors, of nodes that are
//     public and have been ready for a while. A node behind a NAT becomes one on
//     request only: its house goes offline as a whole. The second anchor is a
//     standby: it has the log and no vote.
//   - More than three are on request: five anchors have five votes.
//   - A node comes in as a standby, catches up, and only then gets its vote.
//   - A voter that has been down for long is replaced when a standby is ready. Until
//     then it keeps its vote: taking it away would make nothing safer.
//   - An anchor whose log is gone is taken out at once, whatever the number of
//     votes, and comes in again like a new one: it may not vote with what it has
//     forgotten.
//   - A leader that has to go hands leadership over first.
//   - There is at most one change of the Raft group in a round.
package anchors
